"""What is measured of a model's output against the labels: top-1, top-5, or the caller's own function.

top-k       a row is right when its label is among the k largest of its outputs; of equal ones, the first are taken.
A row with a NaN is wrong.
pkg.mod:f   f(output, y) → one score per row, or one for the batch (a mean over its rows). `output` is an array, or
a dict of arrays where the model has several outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import BnfoldError, UsageError
from bnfold.loading.arch import load_object
from bnfold.specs import written
from bnfold.wording import first_line, guess_among

Array = NDArray[Any]

TOP = {"top1": 1, "top5": 5}

OWN = "Measure it by code of your own: --metric pkg.mod:function."


@dataclass(frozen=True)
class Scored:
    """The rows of a batch.

    Attributes:
        scores: float64[rows].
        predicted: int[rows, k], the classes a row was given, sorted; None where the metric predicts none.
        margins: float64[rows], how far the last class taken is above the first one left out; None as above.
        largest: The largest finite |output|.
        binary: Whether a score is right or wrong, 1 or 0.
    """

    scores: NDArray[np.float64]
    predicted: Array | None = None
    margins: NDArray[np.float64] | None = None
    largest: float = 0.0
    binary: bool = False


class Metric(Protocol):
    """A metric."""

    @property
    def name(self) -> str:
        """As `--metric` takes it."""

    def score(self, outputs: Mapping[str, Array], labels: Array, rows: int) -> Scored:
        """The first `rows` rows of one batch."""


def read_metric(given: Any) -> Metric:
    """A metric by its name, or the caller's function.

    Raises:
        UsageError: There is no such metric.
    """
    if callable(given):
        return Own(getattr(given, "__name__", "the metric"), given)
    text = str(given)
    if text in TOP:
        return TopK(text, TOP[text])
    if ":" not in text:
        raise UsageError(f"no metric is called {text!r}", guess_among(text, [*TOP, "pkg.mod:function"]))
    function = load_object("--metric", text)
    if not callable(function):
        raise UsageError(
            f"--metric {text} is an object of type {type(function).__name__}, not a function",
            "Name a function of (output, y) that returns one score per row.",
        )
    return Own(text, function)


@dataclass(frozen=True)
class TopK:
    """Whether the label is among the k largest."""

    name: str
    k: int

    def score(self, outputs: Mapping[str, Array], labels: Array, rows: int) -> Scored:
        """The rows of one batch.

        Raises:
            UsageError: No output is a score for every class, or a label is no class.
        """
        logits = self._logits(outputs)[:rows].astype(np.float64)
        classes = logits.shape[1]
        _check_labels(labels, classes)
        unknown = np.asarray(np.isnan(logits).any(axis=1))
        order = np.argsort(-logits, axis=1, kind="stable")
        k = min(self.k, classes)
        chosen = np.sort(order[:, :k], axis=1)
        ranked = np.take_along_axis(logits, order, axis=1)
        with np.errstate(invalid="ignore"):  # inf − inf: such a row has no margin that an error could explain
            margins = ranked[:, k - 1] - ranked[:, k] if k < classes else np.full(len(logits), np.inf)
        return Scored(
            scores=((chosen == labels.reshape(-1, 1)).any(axis=1) & ~unknown).astype(np.float64),
            predicted=np.where(unknown[:, None], -1, chosen),
            margins=margins,
            largest=float(np.max(np.abs(logits), where=np.isfinite(logits), initial=0.0)),
            binary=True,
        )

    def _logits(self, outputs: Mapping[str, Array]) -> Array:
        for array in outputs.values():
            if array.ndim >= 2 and array.shape[1] > 1 and all(size == 1 for size in array.shape[2:]):
                return array.reshape(array.shape[:2])
        shapes = ", ".join(f"{name!r} is {written(array.shape)}" for name, array in outputs.items())
        raise UsageError(f"--metric {self.name} needs an output of rows × classes, two or more: {shapes}", OWN)


@dataclass(frozen=True)
class Own:
    """The caller's own function."""

    name: str
    function: Any

    def score(self, outputs: Mapping[str, Array], labels: Array, rows: int) -> Scored:
        """The rows of one batch.

        Raises:
            UsageError: It fails, or returns something else than scores.
        """
        for name, array in outputs.items():
            if not array.ndim or len(array) < rows:
                raise UsageError(
                    f"--metric {self.name}: output {name!r} is {written(array.shape)} for {rows} rows",
                    "A metric needs outputs with one row per row of the data.",
                )
        cut = {name: array[:rows] for name, array in outputs.items()}
        try:
            scores = np.asarray(self.function(next(iter(cut.values())) if len(cut) == 1 else cut, labels), np.float64)
        except BnfoldError:
            raise
        except Exception as error:
            raise UsageError(
                f"--metric {self.name} raised {first_line(error)}", "Make that code work on its own first."
            ) from error
        if scores.shape not in ((), (rows,)) or not np.isfinite(scores).all():
            said = written(scores.shape) if scores.shape not in ((), (rows,)) else "NaN or infinity"
            raise UsageError(
                f"--metric {self.name} returned {said} for {rows} rows",
                "Return one finite score per row, or a mean.",
            )
        binary = scores.shape == (rows,) and bool(np.isin(scores, (0.0, 1.0)).all())
        return Scored(np.broadcast_to(scores, (rows,)), binary=binary)


def _check_labels(labels: Array, classes: int) -> None:
    if labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise UsageError(
            f"the labels are {labels.dtype} of {written(labels.shape)}, and a class is one whole number per row",
            "Give the number of each row's class, from 0.",
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise UsageError(
            f"a label is {labels[wrong].flat[0]}, and the model has the classes 0 to {classes - 1}",
            "Number the classes as the model does, from 0.",
        )
