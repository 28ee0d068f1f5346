"""Is one model the same function as another? Shown by a certificate where it can be, and by running both as written.

The certificate (`bnfold.certificate`) compares the weights of two ONNX models and holds for all inputs. Running both on
a few seeded inputs shows what a proof about numbers cannot: that a runtime does with the files what they say.
PyTorch networks are exported for it (`exports`). Then the proof is of what torch exports, so the runs have the last
word: a proof excuses no difference between them, and weights that disagree are a failure only where the runs do.

A model is run from its file where it has one, so what is judged is what was written, not what was meant. Both sides run
with every runtime optimisation off: onnxruntime folds a Conv and its BatchNorm while loading, and a wrong fold would
then be compared with a right one, or a right one with itself. PyTorch networks run operator by operator, as they stand.

The check can only fail honestly: what the caller could notice besides the numbers (the names, count, order, dtypes and
shapes of inputs and outputs) is compared first, and no tolerance excuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnfold.data.feeds import InputSpec, make_feeds
from bnfold.errors import BnfoldError, UnsupportedError
from bnfold.fragment import html_table
from bnfold.running.pairing import Renamed, go_by_place, paired
from bnfold.running.runners import Runner
from bnfold.running.subjects import Subject, given_feeds, open_subjects
from bnfold.verification.compare import EXACT, RATIO, Difference, check_tolerance, difference, tolerance_for
from bnfold.verification.inside import look_inside
from bnfold.verification.interface import (
    DOES_NOT_RUN,
    NUMBERS,
    OTHER_INPUTS,
    OTHER_OUTPUTS,
    WEIGHTS,
    interface_advice,
    interface_differences,
)
from bnfold.verification.proof import Proof, prove
from bnfold.verification.yardstick import OutputError, errors, float64_runner, worst_errors
from bnfold.wording import LONGEST_LINE, printable

if TYPE_CHECKING:
    from bnfold.certificate import Certificate
    from bnfold.verification.localise import SiteError

Feeds = dict[str, NDArray[Any]]

DYNAMIC_TRIALS = ((1, 0), (3, 1), (1, 2), (3, 3))  # batch size, what is added to the seed
FIXED_TRIALS = ((1, 0), (1, 1), (1, 2))

NOT_SEEN = "running both shows no difference beyond what is allowed"
UNEXPLAINED = (
    "not proved: what torch exports of both is the same function, so the difference comes from rounding, "
    "or from what the exporter does not see"
)


@dataclass(frozen=True)
class OutputCheck:
    """One output over every input tried.

    Attributes:
        name: The output's name.
        max_abs: The largest |before − after|; None where they could not be compared.
        rel: The same as a part of the output's scale.
        error_before: Distance of the unfolded model from float64; None at the quick level.
        error_after: Distance of the folded model from float64; None at the quick level.
        ratio: `error_after / error_before`; None at the quick level.
    """

    name: str
    max_abs: float | None
    rel: float | None
    error_before: float | None = None
    error_after: float | None = None
    ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The output as it stands in `--json`; a number that is not finite is null."""
        numbers = {
            "max_abs": self.max_abs,
            "rel": self.rel,
            "error_before": self.error_before,
            "error_after": self.error_after,
            "ratio": self.ratio,
        }
        finite = {key: value if value is None or math.isfinite(value) else None for key, value in numbers.items()}
        return {"name": self.name, **finite}


@dataclass(frozen=True)
class Verdict:
    """Whether two models are the same function, as far as was tried.

    Attributes:
        passed: Whether nothing spoke against it; also what `bool(verdict)` says.
        level: How it was checked: `"full"` with a certificate, `"quick"` without.
        inputs: Number of inputs both models ran on.
        outputs: One entry per output of the model before.
        failures: Why it did not pass, in words.
        notes: What to know about the check besides.
        certificate: What was shown for all inputs; None at the quick level.
        sites: Errors at every site by its own name, worst first; None where nobody asked and nothing failed.
        exported: Whether the certificate is of what torch exports of a network, which it then trusts.
        advice: What to do about the failures, in a sentence; empty where there are none. Not part of the JSON.
    """

    passed: bool
    level: str
    inputs: int
    outputs: tuple[OutputCheck, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    certificate: Certificate | None = None
    sites: tuple[SiteError, ...] | None = None
    exported: bool = False
    advice: str = ""

    @property
    def comparable(self) -> bool:
        """Whether both could be run on anything at all, so that it can be said whether they are the same function."""
        return self.passed or self.inputs > 0

    @property
    def proved(self) -> bool:
        """Whether both are the same function of all inputs, up to the rounding of stored weights."""
        return self.certificate is not None and self.certificate.proved

    @property
    def extent(self) -> str:
        """What was shown, in words."""
        if not self.proved:
            return f"compared on {self.inputs} input{'' if self.inputs == 1 else 's'}"
        return f"proved for all inputs{' as torch exports them' if self.exported else ''}"

    @property
    def found(self) -> str:
        """What was shown and measured, in words."""
        if not self.comparable:
            return "nothing could be compared"
        worst = max((output.rel for output in self.outputs if output.rel is not None), default=None)
        largest = "" if worst is None else f", largest difference {worst:.2g} of the output's scale"
        ran = f"run on {self.inputs} input{'' if self.inputs == 1 else 's'}" if self.inputs else "not run"
        if self.proved:
            extent = self.extent.replace("proved for", "proved the same function for", 1)
            return f"{extent}; {ran} as well{largest}"
        return f"{ran}, not proved{largest}"

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        """The verdict in a few lines."""
        said = f"{'The same function' if self.passed else 'Not the same function'}: "
        found = self.found.replace("proved the same function for", "proved for", 1)
        return "\n".join(printable(line, LONGEST_LINE) for line in (said + found, *self.failures, *self.notes))

    def to_dict(self) -> dict[str, Any]:
        """The verdict as it stands in `--json`."""
        return {
            "passed": self.passed,
            "level": self.level,
            "inputs": self.inputs,
            "outputs": [output.to_dict() for output in self.outputs],
            "failures": list(self.failures),
            "notes": list(self.notes),
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "sites": None if self.sites is None else [site.to_dict() for site in self.sites],
            "exported": self.exported,
        }

    def _repr_html_(self) -> str:
        """The verdict in a notebook."""
        different = "Not the same function" if self.comparable else "Cannot be compared"
        title = f"The same function, {self.extent}" if self.passed else different
        rows = [(o.name, o.max_abs, o.rel, o.error_before, o.error_after, o.ratio) for o in self.outputs]
        columns = ("output", "max |Δ|", "of the scale", "error before", "error after", "ratio")
        return html_table(title, columns, rows, "; ".join((*self.failures, *self.notes)))

    def with_sites(self, sites: tuple[SiteError, ...], note: str | None) -> Verdict:
        """The verdict with the errors at every site, or with why there are none."""
        return replace(self, sites=sites, notes=self.notes if note is None else (*self.notes, note))

    def with_proof(self, proof: Proof, *, tolerant: bool) -> Verdict:
        """The verdict with what the certificate says.

        Args:
            proof: The certificate. Weights that disagree are a failure, however alike the outputs are; in exported
                networks only where the outputs differ as well, which no proof of exported networks excuses.
            tolerant: Whether the caller allowed a difference, so that such weights are only told.
        """
        if proof.exported and proof.proved and not self.passed:
            return replace(self, notes=(UNEXPLAINED, *self.notes))
        failures, told = (*self.failures, *proof.failures), proof.notes
        if tolerant:
            failures, told = self.failures, (*proof.failures, *proof.notes)
        elif proof.exported and proof.failures and self.passed:
            failures, told = (), (f"not proved: {'; '.join(proof.failures)}; {NOT_SEEN}", *proof.notes)
        return replace(
            self,
            passed=not failures,
            level="quick" if proof.certificate is None else "full",
            failures=failures,
            notes=(*told, *self.notes),
            certificate=proof.certificate,
            exported=proof.exported,
            advice=self.advice if failures == self.failures else WEIGHTS,
        )


def verify(
    before: object,
    after: object,
    inputs: Any = None,
    *,
    level: str = "full",
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    specs: Sequence[InputSpec] = (),
    drawn: Callable[[Feeds], Feeds] | None = None,
    per_site: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Verdict:
    """Compares two models, whoever made the second.

    Args:
        before: A `torch.nn.Module`, `torch.export.ExportedProgram`, `onnx.ModelProto` or `onnx_ir.Model`, or the path
            of a file that holds one, or what `fold` returned. It is not changed.
        after: The same, of any kind; where one is ONNX and the other PyTorch, or either is a Module, inputs and outputs
            go together that have the same name, or the same place.
        inputs: Arrays or tensors to run both on, by name or in the model's order; for a Module, what it is called with
            (a tensor, a sequence of positional or a mapping of keyword arguments). None draws seeded ones, at batch 1
            and 3 where the batch is dynamic.
        level: `"full"` also proves equality from the weights, of PyTorch networks as torch exports them to ONNX;
            `"quick"` only runs both.
        rtol: Largest error as a part of the output's scale; None takes the dtype's own (`compare.TOLERANCES`). Where it
            or `atol` is given, weights that disagree are told but no failure.
        atol: What is allowed on top of it; None as above.
        seed: Of the drawn inputs.
        specs: Shapes and dtypes of the drawn inputs, where the model leaves them open.
        drawn: Takes normal inputs to what the model expects, e.g. images of 0 to 255; None leaves them as drawn.
        per_site: Also compare what both compute inside, at every site (`localise`); done by itself where the check
            fails. On the first of the inputs.
        progress: Called with the part done, 0 to 1.

    Raises:
        UnsupportedError: The model before cannot be run here, so there is nothing to compare with.
        UsageError: The inputs do not fit the model before, a Module is in training mode or comes without inputs, or a
            tolerance is negative.
    """
    check_tolerance("rtol", rtol)
    check_tolerance("atol", atol)
    with ExitStack() as stack:
        first, second = open_subjects((before, after), stack, inputs, specs, seed)
        # Before anything is loaded to be run: the weights of a large model would be in memory three times.
        if progress:
            progress(0.0)
        proof = prove(first, second) if level == "full" else None
        runner: Runner = first.runner(first.as_written)
        try:
            other: Runner = second.runner(second.as_written)
        except UnsupportedError as error:
            return _failed(error.what, advice=DOES_NOT_RUN)
        by_place = go_by_place(first, second)
        if by_place and len(runner.inputs) != len(other.inputs):
            said = f"the inputs are {list(runner.inputs)} before and {list(other.inputs)} after"
            return _failed(said, advice=OTHER_INPUTS)
        if by_place:
            other = Renamed(other, list(runner.inputs))
        failures = interface_differences(runner, other)
        if failures:
            return _failed(*failures, advice=interface_advice(runner, other))
        trials = _trials(first, inputs, seed, specs, drawn)
        tolerant = rtol is not None or atol is not None
        exact = float64_runner(first) if level == "full" else None
        compared = _compared(runner, other, trials, progress, exact, by_place=by_place)
        proved = proof is not None and proof.proved and not proof.exported
        verdict = compared if isinstance(compared, Verdict) else _judged(compared, rtol, atol, proved=proved)
        if proof is not None:
            verdict = verdict.with_proof(proof, tolerant=tolerant)
        if not verdict.inputs or (verdict.passed and not per_site):
            return verdict
        return verdict.with_sites(*look_inside(first, second, trials[0]()))


def _trials(
    subject: Subject,
    inputs: Any,
    seed: int,
    specs: Sequence[InputSpec],
    drawn: Callable[[Feeds], Feeds] | None,
) -> list[Callable[[], Feeds]]:
    """One function per input to try; each builds its feeds when called, so that only one set is in memory."""
    declared = subject.declared
    if inputs is not None:
        given = given_feeds(subject, inputs)
        return [lambda: make_feeds(declared, batch=1, seed=seed, specs=specs, data=given)]
    dynamic = any(decl.shape and decl.shape[0] is None for decl in declared)

    def draw(batch: int, offset: int) -> Feeds:
        feeds = make_feeds(declared, batch=batch, seed=seed + offset, specs=specs)
        return feeds if drawn is None else drawn(feeds)

    plan = DYNAMIC_TRIALS if dynamic else FIXED_TRIALS
    return [lambda batch=batch, offset=offset: draw(batch, offset) for batch, offset in plan]  # type: ignore[misc]


@dataclass(frozen=True)
class Compared:
    """What both models gave.

    Attributes:
        inputs: Number of inputs both ran on.
        differences: How far apart they are, by output.
        dtypes: Of the outputs.
        errors: How far both are from float64, by output; empty where that was not run.
        notes: What to know besides.
    """

    inputs: int
    differences: dict[str, Difference]
    dtypes: dict[str, np.dtype[Any]]
    errors: dict[str, OutputError]
    notes: tuple[str, ...]


def _compared(
    before: Runner,
    after: Runner,
    trials: Sequence[Callable[[], Feeds]],
    progress: Callable[[float], None] | None,
    exact: Runner | None,
    *,
    by_place: bool,
) -> Compared | Verdict:
    """Both models on every input; a verdict where one of them cannot be run."""
    differences: dict[str, Difference] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    measured: list[tuple[OutputError, ...]] = []
    notes: list[str] = []
    tried = 0
    refused = ""
    for feeds in _reported(trials, progress):
        try:
            expected = before.run(feeds)
        except BnfoldError as error:
            if not tried:
                raise
            refused = error.what  # its declaration promises too much
            continue
        try:
            got = after.run(feeds)
        except BnfoldError as error:
            return _failed(f"{error.what}, where the model before does", inputs=tried, advice=DOES_NOT_RUN)
        if by_place and len(expected) == len(got):
            got = {ours: got[theirs] for ours, theirs in zip(expected, paired(list(expected), list(got)), strict=True)}
        if list(expected) != list(got):
            said = f"the outputs are {list(expected)} before and {list(got)} after"
            return _failed(said, inputs=tried, advice=OTHER_OUTPUTS)
        if exact is not None:
            try:
                measured.append(errors(exact.run(feeds), expected, got))
            except Exception as error:  # what float64 cannot run is judged by the tolerances
                notes.append(f"not compared with float64: {error}")
                exact, measured = None, []
        tried += 1
        for name, array in expected.items():
            found = difference(array, got[name])
            differences[name] = differences[name].merge(found) if name in differences else found
            dtypes.setdefault(name, array.dtype)
    if refused:
        notes.append(f"{refused}; {tried} other inputs were compared")
    worst = {error.name: error for error in worst_errors(measured)}
    return Compared(tried, differences, dtypes, worst, tuple(notes))


def _judged(compared: Compared, rtol: float | None, atol: float | None, *, proved: bool) -> Verdict:
    """The verdict on what was compared.

    A difference above the dtype's tolerance is no failure where the fold does not add to what the model loses to
    rounding by itself: where it was proved, or is not further from float64 than the model before.
    """
    outputs, failures, notes = [], [], list(compared.notes)
    given = rtol is not None or atol is not None
    for name, found in compared.differences.items():
        tolerance = tolerance_for(compared.dtypes[name], rtol, atol)
        error = compared.errors.get(name)
        numbers = (None, None, None) if error is None else (error.error_before, error.error_after, error.ratio)
        outputs.append(OutputCheck(name, found.max_abs, found.rel, *numbers))
        said = "" if error is None or given or (error.level == "pass" and error.non_finite) else error.sentence()
        if found.problem:
            failures.append(f"output {name!r}: {found.problem}")
        elif not found.within(tolerance):
            allowed = tolerance.atol + tolerance.rtol * found.scale
            sentence = (
                f"output {name!r}: the largest difference is {found.max_abs:.3g}, allowed is {allowed:.3g} "
                f"(rtol {tolerance.rtol:g} of the output scale {found.scale:.3g}, atol {tolerance.atol:g})"
            )
            innocent = error is not None and not given and (proved or error.ratio <= RATIO.warn)
            (notes if innocent else failures).append(f"{sentence}; {said}" if said else sentence)
        elif said:
            notes.append(said)
        elif found.non_finite:
            total = found.non_finite + found.compared
            notes.append(f"output {name!r}: {found.non_finite} of {total} values are the same NaN or infinity in both")
        elif not found.compared:
            notes.append(f"output {name!r} is empty: there was nothing to compare")
        if tolerance is EXACT and not found.problem:
            notes.append(f"output {name!r} ({compared.dtypes[name]}) was compared exactly")
    advice = NUMBERS if failures else ""
    return Verdict(not failures, "quick", compared.inputs, tuple(outputs), tuple(failures), tuple(notes), advice=advice)


def _reported(trials: Sequence[Callable[[], Feeds]], progress: Callable[[float], None] | None) -> Iterator[Feeds]:
    for index, trial in enumerate(trials):
        if progress:
            progress(index / len(trials))
        yield trial()
    if progress:
        progress(1.0)


def _failed(*failures: str, inputs: int = 0, advice: str) -> Verdict:
    return Verdict(False, "quick", inputs, failures=failures, advice=advice)
