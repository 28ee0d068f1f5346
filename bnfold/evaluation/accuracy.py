"""What two models are worth on data: both see the same batches, and are compared row by row.

A difference of two accuracies says little; the rows that changed say more. For top-k:

    changed     rows that were given other classes
    lost        rows that were right before and are wrong after; gained: the other way round
    ties        changed rows in which the model before could not decide within the error that verification allows,
                margin ≤ 2·(atol + rtol·max|output|): each of two outputs may move by that much
    p           McNemar's exact test of lost against gained; low, high: a 95 % interval of the difference

The error allowed is the yardstick for ties, not the error measured in the row: a class cannot change without its row's
outputs moving by the margin, so the latter would explain every change, one made by a wrong weight as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.data.batches import Dataset
from bnfold.data.datasets import open_dataset
from bnfold.data.streams import Fed, stream
from bnfold.errors import UsageError
from bnfold.evaluation.metrics import Scored, read_metric
from bnfold.evaluation.significance import difference_interval, mcnemar
from bnfold.running.pairing import Renamed, go_by_place, paired
from bnfold.running.runners import Runner
from bnfold.running.subjects import Subject, open_subjects
from bnfold.specs import InputSpec
from bnfold.verification.compare import tolerance_for
from bnfold.wording import printable

LABELS_MISSING = "Give a .npz file with the arrays x and y, a folder of images by class, or batches (x, y)."


@dataclass(frozen=True)
class Accuracy:
    """A metric of two models on the same rows.

    Attributes:
        metric: Its name.
        data: Where the rows came from.
        n: How many there were.
        before: Its mean over the rows, of the model before.
        after: The same of the model after.
        agreement: Share of rows that were given the same classes; None where the metric predicts none.
        changed: Rows that were not; None as above.
        lost: Rows right before and wrong after; None where rows are not right or wrong.
        gained: The other way round; None as above.
        ties: Of the changed rows, those that an error as large as verification allows explains.
        p: McNemar's exact p-value; None as for `lost`.
        low: The 95 % interval of `delta`, its lower end; None as for `lost`.
        high: Its upper end.
        folded_only: The metric of the folded model as it would be without recalibration; None where there was none.
    """

    metric: str
    data: str
    n: int
    before: float
    after: float
    agreement: float | None = None
    changed: int | None = None
    lost: int | None = None
    gained: int | None = None
    ties: int | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None
    folded_only: float | None = None

    @property
    def delta(self) -> float:
        """`after − before`."""
        return self.after - self.before

    def to_dict(self) -> dict[str, Any]:
        """The measurement as it stands in `--json`."""
        names = ("metric", "data", "n", "before", "after", "delta", "low", "high", "p")
        more = ("agreement", "changed", "lost", "gained", "ties", "folded_only")
        return {name: getattr(self, name) for name in (*names, *more)}

    def __str__(self) -> str:
        """The measurement in one line."""
        share = "" if self.changed is None else f", {self.changed} rows are given another class"
        what = f"{self.metric} on {self.n} rows of {printable(self.data)}"
        return f"{what}: {self.before:.4g} before, {self.after:.4g} after{share}"


def accuracy(
    before: object,
    after: object,
    data: Any,
    metric: Any = "top1",
    *,
    folded_only: object | None = None,
    seed: int = 0,
    specs: Sequence[InputSpec] = (),
    progress: Callable[[float | None], None] | None = None,
) -> Accuracy:
    """Measures two models on a data set, in one pass.

    Args:
        before: Anything `verify` takes.
        after: The same.
        data: A path or a loader, as `convert` takes it, or an open data set.
        metric: `"top1"`, `"top5"`, `pkg.mod:function`, a function of (output, y), or a metric that was read.
        folded_only: A third model, of which only the metric is taken.
        seed: Of what a module without declared inputs is asked with.
        specs: Shapes the caller gave, for such modules.
        progress: Called with the part done; None where that is not known.

    Raises:
        UsageError: The data or the metric do not fit the models.
        UnreadableError: The data is damaged.
        UnsupportedError: A model cannot be run here.
    """
    data = data if hasattr(data, "batches") else open_dataset(data)
    metric = metric if hasattr(metric, "score") else read_metric(metric)
    if data.labelled is False:
        raise _unlabelled(data)
    with ExitStack() as stack:
        first, second = open_subjects((before, after), stack, None, specs, seed)
        runner: Runner = first.runner(first.as_written)
        runners = [runner, _like(second, first, runner)]
        if folded_only is not None:
            third = open_subjects((before, folded_only), stack, None, specs, seed)[1]
            runners.append(_like(third, first, runner))
        tally = _Tally()
        for fed, (one, other, *rest) in _outputs(runners, stream(data, first.declared)):
            if fed.labels is None:
                raise _unlabelled(data)
            scored = [metric.score(outputs, fed.labels, fed.rows) for outputs in (one, other, *rest)]
            tally.add(scored, _allowed(one, scored[0]))
            if progress:
                progress(fed.done)
    return tally.result(metric.name, data.name)


@dataclass
class _Tally:
    n: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    binary: bool = True
    predicts: bool = True
    third: bool = False
    pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2), np.int64))  # [right before, right after]
    changed: int = 0
    ties: int = 0

    def add(self, scored: Sequence[Scored], allowed: float) -> None:
        before, after = scored[:2]
        self.n += len(before.scores)
        self.third = len(scored) > 2
        for index, each in enumerate(scored):
            self.sums[index] += float(each.scores.sum())
        self.binary &= before.binary and after.binary
        if self.binary:
            np.add.at(self.pairs, (before.scores.astype(int), after.scores.astype(int)), 1)
        self.predicts &= before.predicted is not None
        if before.predicted is None or after.predicted is None or before.margins is None:
            return
        if before.predicted.shape != after.predicted.shape:
            raise UsageError("the models do not have the same number of classes", "Compare models of one task.")
        moved = (before.predicted != after.predicted).any(axis=1)
        self.changed += int(moved.sum())
        self.ties += int((moved & (before.margins <= 2 * allowed)).sum())

    def result(self, metric: str, data: str) -> Accuracy:
        (neither, gained), (lost, both) = ((int(a), int(b)) for a, b in self.pairs)
        means = [total / self.n for total in self.sums]
        found: dict[str, Any] = {"folded_only": means[2]} if self.third else {}
        if self.predicts:
            found |= {"agreement": 1 - self.changed / self.n, "changed": self.changed, "ties": self.ties}
        if self.binary:
            low, high = difference_interval(both, lost, gained, neither)
            found |= {"lost": lost, "gained": gained, "p": mcnemar(lost, gained), "low": low, "high": high}
        return Accuracy(metric, data, self.n, means[0], means[1], **found)


def _outputs(runners: Sequence[Runner], batches: Iterator[Fed]) -> Iterator[tuple[Fed, list[dict[str, NDArray[Any]]]]]:
    """What every runner makes of every batch, by the names of the first one's outputs."""
    for fed in batches:
        expected = runners[0].run(fed.feeds)
        found = [expected]
        for runner in runners[1:]:
            got = runner.run(fed.feeds)
            if len(got) != len(expected):
                raise UsageError(
                    f"the model before has {len(expected)} outputs, and the one after {len(got)}",
                    "Compare models of one task.",
                )
            theirs = paired(list(expected), list(got))
            found.append({ours: got[name] for ours, name in zip(expected, theirs, strict=True)})
        yield fed, found


def _allowed(outputs: Mapping[str, NDArray[Any]], scored: Scored) -> float:
    tolerance = tolerance_for(next(iter(outputs.values())).dtype)
    return tolerance.atol + tolerance.rtol * scored.largest


def _like(subject: Subject, first: Subject, like: Runner) -> Runner:
    runner: Runner = subject.runner(subject.as_written)
    if not go_by_place(first, subject):
        return runner
    if len(runner.inputs) != len(like.inputs):
        raise UsageError(
            f"the inputs are {list(like.inputs)} before and {list(runner.inputs)} after", "Compare models of one task."
        )
    return Renamed(runner, list(like.inputs))


def _unlabelled(data: Dataset) -> UsageError:
    return UsageError(f"{data.name} has no labels, which a metric needs", LABELS_MISSING)
