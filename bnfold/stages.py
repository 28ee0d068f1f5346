"""The steps of the line, one function each: it takes the report so far and returns it with one thing more."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bnfold.arrays import for_the_only_input
from bnfold.bench import bench as bench_models
from bnfold.conditions import Condition, failures, parse_condition
from bnfold.errors import UnsupportedError, UsageError
from bnfold.feeds import load_input_data
from bnfold.plan import Plan
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
) -> tuple[onnx_ir.Model, Given, Report]:
    """The unfolded model as ONNX, the data by the names of its inputs, and a report with nothing measured yet."""
    tell("loading", None)
    from bnfold.load import load

    loaded = load(model, arch=arch, arch_args=arch_args, trust_pickle=trust_pickle)
    unfolded, notes = loaded.model, loaded.notes
    if loaded.format != "onnx" or given.dynamic or opset is not None:
        tell("exporting", None)
        from bnfold.capture import capture  # imports torch, which takes seconds and an ONNX file does not need
        from bnfold.examples import required_inputs

        given, said = by_name(given, required_inputs(loaded.model))
        notes += said
        captured = capture(
            loaded, inputs=given.specs, data=given.data, dynamic=given.dynamic, opset=opset, seed=given.seed
        )
        unfolded, notes = captured.model, (*notes, *captured.notes)
    import onnx_ir

    assert isinstance(unfolded, onnx_ir.Model)
    given, said = by_name(given, input_names(unfolded))
    notes += said
    report = Report(
        command,
        FileInfo(os.fspath(model), loaded.sha256, loaded.format),
        operators_before=count_operators(unfolded),
        bytes_before=stored_bytes(unfolded, model if loaded.format == "onnx" else None),
        notes=notes,
    )
    return unfolded, given, report


def input_names(model: onnx_ir.Model) -> list[str]:
    """The inputs that must be fed."""
    return [value.name or "" for value in model.graph.inputs if value.name not in model.graph.initializers]


def by_name(given: Given, names: Sequence[str]) -> tuple[Given, tuple[str, ...]]:
    """What the caller said, with the data under the name of a model's only input, and a note if that is another one."""
    if not isinstance(given.data, Mapping):
        return given, ()
    data, note = for_the_only_input(given.data, names)
    return replace(given, data=data), (note,) if note else ()


def preprocessed(
    unfolded: onnx_ir.Model, report: Report, given: Given
) -> tuple[onnx_ir.Model, Report, tuple[Step, ...]]:
    """The model that is to be folded with its preprocessing in front, the report on it, and what was put there."""
    if not given.preprocessing:
        return unfolded, report, ()
    model, steps = insert(unfolded, given.preprocessing)
    return model, replace(report, operators_before=count_operators(model)), steps


def report_on_files(
    command: str, before: StrPath, after: StrPath | None, given: Given, tell: Progress
) -> tuple[Given, Report]:
    """The data by the names of the inputs, and a report on one or two ONNX files with nothing measured yet."""
    tell("loading", None)
    first = as_ir(before)
    given, notes = by_name(given, input_names(first))
    report = Report(
        command,
        FileInfo.of(before),
        operators_before=count_operators(first),
        bytes_before=stored_bytes(first, before),
        notes=notes,
    )
    if after is None:
        return given, report
    second = as_ir(after)
    return given, replace(
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


def with_copies_noted(report: Report, plan: Plan) -> Report:
    """The report with a note on the copies of shared weights, if there are any."""
    operators = {name for site in plan.sites for name in site.copies}
    if not operators:
        return report
    who = "1 operator got a weight" if len(operators) == 1 else f"{len(operators)} operators got weights"
    size = f"{plan.growth / 1e6:.1f} MB" if plan.growth >= 1e5 else f"{plan.growth:,} bytes"
    note = f"{who} of their own instead of a shared one, {size} more in all (--duplicate never: none)"
    return replace(
        report, notes=(*report.notes, note.replace("of their own", "of its own") if len(operators) == 1 else note)
    )


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
