"""The steps of the line, one function each: it takes the report so far and returns it with one thing more."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bnfold.bench import bench as bench_models
from bnfold.conditions import Condition, failures, parse_condition
from bnfold.errors import UnsupportedError, UsageError
from bnfold.feeds import load_input_data
from bnfold.preprocess import Preprocessing, Step, insert, raw
from bnfold.report import FileInfo, Report, stored_bytes
from bnfold.runners import as_ir, count_operators
from bnfold.specs import ChannelNumbers, DynamicDim, InputSpec, parse_dynamic, parse_input, parse_values
from bnfold.verify import verify as verify_models

if TYPE_CHECKING:
    import onnx_ir

StrPath = str | os.PathLike[str]

Data = Mapping[str, NDArray[Any]] | NDArray[Any]

Progress = Callable[[str, float | None], None]

LEVELS = ("full", "quick", "off")

LATER_FORMATS = {
    ".pt2": "an exported program",
    ".pt": "a folded state dict",
    ".pth": "a folded state dict",
    ".safetensors": "a folded state dict",
}


@dataclass(frozen=True)
class Given:
    """What the caller said, read; the arguments are described at `pipeline.convert`."""

    specs: tuple[InputSpec, ...]
    data: Data | None
    dynamic: tuple[DynamicDim, ...]
    conditions: tuple[Condition, ...]
    seed: int
    preprocessing: Preprocessing


@dataclass(frozen=True)
class TimingOptions:
    """How to time."""

    runtimes: Sequence[str]
    threads: int | None
    min_time: float


def read_given(
    inputs: Sequence[str | InputSpec],
    input_data: StrPath | Data | None,
    dynamic: Sequence[str | DynamicDim] = (),
    fail_on: Sequence[str] = (),
    *,
    seed: int,
    mean: ChannelNumbers | None = None,
    std: ChannelNumbers | None = None,
    scale: ChannelNumbers | None = None,
) -> Given:
    """Reads what is given as text or as a file.

    Raises:
        UsageError: Something does not read.
        UnreadableError: The file with the input data does not.
    """
    return Given(
        specs=tuple(parse_input(spec) if isinstance(spec, str) else spec for spec in inputs),
        data=load_input_data(input_data) if isinstance(input_data, (str, os.PathLike)) else input_data,
        dynamic=tuple(parse_dynamic(dim) if isinstance(dim, str) else dim for dim in dynamic),
        conditions=tuple(parse_condition(text) for text in fail_on),
        seed=seed,
        preprocessing=Preprocessing(parse_values("mean", mean), parse_values("std", std), parse_values("scale", scale)),
    )


def open_model(
    command: str,
    model: StrPath,
    given: Given,
    tell: Progress,
    *,
    arch: str | None,
    arch_args: Mapping[str, str] | None,
    opset: int | None,
    trust_pickle: bool,
) -> tuple[onnx_ir.Model, Report]:
    """The unfolded model as ONNX, and a report on it with nothing measured yet."""
    tell("loading", None)
    from bnfold.load import load

    loaded = load(model, arch=arch, arch_args=arch_args, trust_pickle=trust_pickle)
    unfolded, notes = loaded.model, loaded.notes
    if loaded.format != "onnx" or given.dynamic or opset is not None:
        tell("exporting", None)
        from bnfold.capture import capture  # imports torch, which takes seconds and an ONNX file does not need

        captured = capture(
            loaded, inputs=given.specs, data=given.data, dynamic=given.dynamic, opset=opset, seed=given.seed
        )
        unfolded, notes = captured.model, (*notes, *captured.notes)
    import onnx_ir

    assert isinstance(unfolded, onnx_ir.Model)
    report = Report(
        command,
        FileInfo(os.fspath(model), loaded.sha256, loaded.format),
        operators_before=count_operators(unfolded),
        bytes_before=stored_bytes(unfolded, model if loaded.format == "onnx" else None),
        notes=notes,
    )
    return unfolded, report


def preprocessed(
    unfolded: onnx_ir.Model, report: Report, given: Given
) -> tuple[onnx_ir.Model, Report, tuple[Step, ...]]:
    """The model that is to be folded with its preprocessing in front, the report on it, and what was put there."""
    if not given.preprocessing:
        return unfolded, report, ()
    model, steps = insert(unfolded, given.preprocessing)
    return model, replace(report, operators_before=count_operators(model)), steps


def report_on_files(command: str, before: StrPath, after: StrPath | None, tell: Progress) -> Report:
    """A report on one or two ONNX files with nothing measured yet."""
    tell("loading", None)
    first = as_ir(before)
    report = Report(
        command,
        FileInfo.of(before),
        operators_before=count_operators(first),
        bytes_before=stored_bytes(first, before),
    )
    if after is None:
        return report
    second = as_ir(after)
    return replace(
        report,
        output=FileInfo.of(after),
        operators_after=count_operators(second),
        bytes_after=stored_bytes(second, after),
    )


def verified(
    report: Report,
    before: object,
    after: StrPath,
    given: Given,
    rtol: float | None,
    atol: float | None,
    tell: Progress,
    steps: Sequence[Step] = (),
) -> Report:
    """The report with the verdict on both models, which begin with these steps of preprocessing."""
    verdict = verify_models(
        before,
        after,
        given.data,
        rtol=rtol,
        atol=atol,
        seed=given.seed,
        specs=given.specs,
        drawn=lambda feeds: raw(steps, feeds),
        progress=lambda done: tell("verifying", done),
    )
    return replace(report, verification=verdict)


def timed(
    report: Report, before: object, after: StrPath | None, given: Given, options: TimingOptions, tell: Progress
) -> Report:
    """The report with their latencies."""
    timing = bench_models(
        before,
        after,
        given.data,
        runtimes=options.runtimes,
        threads=options.threads,
        min_time=options.min_time,
        seed=given.seed,
        specs=given.specs,
        progress=lambda done: tell("timing", done),
    )
    return replace(report, benchmark=timing)


def judged(report: Report, given: Given) -> Report:
    """The report with what it fails of the caller's conditions."""
    return replace(report, failures=failures(given.conditions, report))


def check_level(level: str) -> None:
    """Refuses a level of verification that does not exist."""
    if level not in LEVELS:
        close = difflib.get_close_matches(level, LEVELS, n=1)
        guess = f"Did you mean {close[0]}? " if close else ""
        raise UsageError(f"no level of verification is called {level!r}", f"{guess}There are: {', '.join(LEVELS)}.")


def check_format(target: Path) -> None:
    """Refuses an output in a format that is not written yet."""
    suffix = target.suffix.lower()
    if suffix in LATER_FORMATS:
        raise UnsupportedError(
            f"{target} would be {LATER_FORMATS[suffix]}; this version of bnfold writes ONNX only",
            "Give the output the suffix .onnx.",
        )
