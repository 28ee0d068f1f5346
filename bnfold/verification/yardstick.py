"""The float64 yardstick: how far two models are from what the first one means in real arithmetic.

    error_before, error_after   max|model − float64| / scale of the output in float64
    ratio                       error_after / error_before, neither taken smaller than half a unit in the last place

Two models of one function differ by what both round. Which of them is at fault, and whether it matters, only a more
precise run can say; it runs in PyTorch, as onnxruntime has no float64 convolution on CPUs.

The gate looks at both numbers, and an output is as bad as the better of the two says:

    fails    error_after above its limit for the dtype (`compare.DRIFT`) and ratio above 4
    warned   error_after above its lower limit and ratio above 2
    passes   everything else

Drift alone fails innocent networks: one that magnifies rounding (visformer_tiny with drawn weights, 3e-4 from float64
before any fold) is as far away after a perfect fold. The ratio alone fails innocent noise: of 1e-8 to 5e-8.
NaN or an infinity on one side only always fails; what is so on both sides, at the same places, is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.float64.runner import Float64Runner
from bnfold.running.runners import Runner
from bnfold.running.subjects import OnnxSubject, Subject, open_subjects
from bnfold.verification.compare import DRIFT, RATIO, difference

Outputs = Mapping[str, NDArray[Any]]
LEVELS = ("pass", "warn", "fail")
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def float64_runner(subject: Subject) -> Runner:
    """What was opened, in float64.

    Raises:
        UnsupportedError: A module cannot be copied.
    """
    if isinstance(subject, OnnxSubject):
        return Float64Runner(subject.model, subject.label)
    from bnfold.float64.networks import Float64TorchRunner

    return Float64TorchRunner(subject.network, subject.label)


def yardstick(before: object, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What a model means for some inputs: its outputs in float64.

    Args:
        before: A Module, ExportedProgram, ModelProto, `onnx_ir.Model`, or the path of one.
        feeds: Its inputs by name.

    Raises:
        UsageError: An input is missing or not taken.
        UnsupportedError: Something in it has no float64 meaning here.
    """
    with ExitStack() as stack:
        [subject] = open_subjects((before,), stack, feeds, (), 0)
        return float64_runner(subject).run(feeds)


@dataclass(frozen=True)
class OutputError:
    """How far both models are from float64 in one output.

    Attributes:
        name: The output's name.
        dtype: Its dtype in the models; only floats have errors.
        scale: The largest finite value of the output in float64.
        max_before: Largest distance of the model before from float64.
        max_after: The same of the model after.
        rms_before: Root mean square of that distance, as a part of that of the output.
        rms_after: The same of the model after.
        non_finite: Elements that are the same NaN or infinity in both models, or not finite in float64.
        problem: Why the models cannot be compared, in words; empty where they can.
    """

    name: str
    dtype: str
    scale: float = 0.0
    max_before: float = 0.0
    max_after: float = 0.0
    rms_before: float = 0.0
    rms_after: float = 0.0
    non_finite: int = 0
    problem: str = ""

    @property
    def error_before(self) -> float:
        """The largest distance of the model before, as a part of the output's scale."""
        return self.max_before / (self.scale or 1.0)

    @property
    def error_after(self) -> float:
        """The same of the model after."""
        return self.max_after / (self.scale or 1.0)

    @property
    def ratio(self) -> float:
        """How many times as far the model after is; neither error counts as less than half a last place."""
        unit = UNIT.get(self.dtype, UNIT["float64"])
        return max(self.error_after, unit) / max(self.error_before, unit)

    @property
    def level(self) -> str:
        """`"pass"`, `"warn"` or `"fail"`."""
        if self.problem:
            return "fail"
        drift = DRIFT.get(self.dtype)
        return LEVELS[0 if drift is None else min(drift.level(self.error_after), RATIO.level(self.ratio))]

    def merge(self, other: OutputError) -> OutputError:
        """The same output of another run as well: the worst of both."""
        if self.problem or other.problem:
            return self if self.problem else other
        return replace(
            self,
            scale=max(self.scale, other.scale),
            max_before=max(self.max_before, other.max_before),
            max_after=max(self.max_after, other.max_after),
            rms_before=max(self.rms_before, other.rms_before),
            rms_after=max(self.rms_after, other.rms_after),
            non_finite=self.non_finite + other.non_finite,
        )

    def sentence(self) -> str:
        """The judgement in words, empty where there is nothing to say."""
        if self.problem:
            return f"output {self.name!r}: {self.problem}"
        times = f"{self.ratio:.3g} times {self.error_before:.2g} before"
        numbers = f"{self.error_after:.2g} of its scale from float64, {times}"
        drift = DRIFT.get(self.dtype)
        if self.level != "pass" and drift is not None:
            failed = self.level == "fail"
            far, many = (drift.fail, RATIO.fail) if failed else (drift.warn, RATIO.warn)
            verb = "fails" if failed else "is worth a warning"
            return f"output {self.name!r} is {numbers}; above {far:g} and {many:g} times together it {verb}"
        if drift is not None and drift.level(self.error_after):
            return f"output {self.name!r} is {numbers}: the model magnifies rounding, the fold does not add to it"
        if self.non_finite:
            return (
                f"output {self.name!r}: {self.non_finite} values are NaN or infinite in both models, and not compared"
            )
        return ""


def errors(reference: Outputs, before: Outputs, after: Outputs) -> tuple[OutputError, ...]:
    """How far two models are from float64, output by output.

    Args:
        reference: `yardstick(before, feeds)`.
        before: What the first model gives, by the same names.
        after: What the second one gives.
    """
    return tuple(_error(name, exact, before[name], after[name]) for name, exact in reference.items())


def _error(name: str, exact: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> OutputError:
    dtype = before.dtype.name
    apart = difference(before, after)
    if apart.problem:
        return OutputError(name, dtype, problem=apart.problem)
    if before.shape != exact.shape:
        shapes = [list(array.shape) for array in (exact, before)]
        return OutputError(name, dtype, problem=f"its shape is {shapes[0]} in float64 and {shapes[1]} in both models")
    if dtype not in DRIFT:
        return OutputError(name, dtype)
    truth, one, other = (array.astype(np.float64) for array in (exact, before, after))
    usable = np.isfinite(truth) & np.isfinite(one) & np.isfinite(other)
    truth, one, other = truth[usable], one[usable], other[usable]
    size = _rms(truth) or 1.0
    return OutputError(
        name,
        dtype,
        scale=float(np.abs(truth).max(initial=0.0)),
        max_before=float(np.abs(one - truth).max(initial=0.0)),
        max_after=float(np.abs(other - truth).max(initial=0.0)),
        rms_before=_rms(one - truth) / size,
        rms_after=_rms(other - truth) / size,
        non_finite=int(usable.size - usable.sum()),
    )


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def worst_errors(runs: Sequence[Sequence[OutputError]]) -> tuple[OutputError, ...]:
    """Several runs of the same two models together, output by output."""
    merged: dict[str, OutputError] = {}
    for run in runs:
        for found in run:
            merged[found.name] = merged[found.name].merge(found) if found.name in merged else found
    return tuple(merged.values())
