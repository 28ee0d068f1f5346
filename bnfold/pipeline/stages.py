"""The steps of the line, one function each: it takes the report so far and returns it with one thing more."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bnfold.benchmark.bench import bench as bench_models
from bnfold.data.arrays import for_the_only_input
from bnfold.data.feeds import load_input_data
from bnfold.errors import UnsupportedError, UsageError
from bnfold.loading.onnxfile import stored_bytes
from bnfold.pipeline.preprocess import Preprocessing, Step, insert, raw
from bnfold.planning.choices import Choices
from bnfold.planning.plan import Plan
from bnfold.reporting.conditions import Condition, failures, parse_condition
from bnfold.reporting.report import FileInfo, Report
from bnfold.running.runners import ONNX_RUNTIMES, TORCH_RUNTIMES, count_operators, wrong_runtime
from bnfold.running.subjects import OnnxSubject, Subject, open_subjects
from bnfold.specs import MAX_BYTES, ChannelNumbers, DynamicDim, InputSpec, parse_dynamic, parse_input, parse_values
from bnfold.verification.verify import verify as verify_models

if TYPE_CHECKING:
    import onnx_ir

    from bnfold.loading.load import Loaded

StrPath = str | os.PathLike[str]

Data = Mapping[str, NDArray[Any]] | NDArray[Any]

Progress = Callable[[str, float | None], None]

LEVELS = ("full", "quick", "off")

FORMATS = {".onnx": "onnx", ".pt2": "pt2", ".safetensors": "state-dict", ".pt": "state-dict", ".pth": "state-dict"}


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
    """How to time; `runtimes` None takes those that are usual for the models."""

    runtimes: Sequence[str] | None
    threads: int | None
    min_time: float
    device: str


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
    max_bytes: int | str = MAX_BYTES,
) -> Given:
    """Reads what is given as text or as a file.

    Raises:
        UsageError: Something does not read.
        UnreadableError: The file with the input data does not.
    """
    return Given(
        specs=tuple(parse_input(spec) if isinstance(spec, str) else spec for spec in inputs),
        data=load_input_data(input_data, max_bytes) if isinstance(input_data, (str, os.PathLike)) else input_data,
        dynamic=tuple(parse_dynamic(dim) if isinstance(dim, str) else dim for dim in dynamic),
        conditions=tuple(parse_condition(text) for text in fail_on),
        seed=seed,
        preprocessing=Preprocessing(parse_values("mean", mean), parse_values("std", std), parse_values("scale", scale)),
    )


@dataclass(frozen=True)
class Source:
    """The model that came in, and how to open it.

    Attributes:
        path: The file.
        arch: The code that builds the network, for checkpoints.
        arch_args: Keyword arguments of that code.
        trust_pickle: Whether code in the file may run.
        opset: The ONNX opset to export.
        max_bytes: What the file, and its tensors together, may have at most.
    """

    path: StrPath
    arch: str | None
    arch_args: Mapping[str, str] | None
    trust_pickle: bool
    opset: int | None
    max_bytes: int | str

    def loaded(self) -> Loaded:
        """What stands in the file."""
        from bnfold.loading.load import load

        return load(
            self.path,
            arch=self.arch,
            arch_args=self.arch_args,
            trust_pickle=self.trust_pickle,
            max_bytes=self.max_bytes,
        )


def open_model(command: str, source: Source, given: Given, tell: Progress) -> tuple[onnx_ir.Model, Given, Report]:
    """The unfolded model as ONNX, the data by the names of its inputs, and a report with nothing measured yet."""
    tell("loading", None)
    loaded = source.loaded()
    unfolded, notes = loaded.model, loaded.notes
    if loaded.format != "onnx" or given.dynamic or source.opset is not None:
        tell("exporting", None)
        from bnfold.tracing.capture import capture  # imports torch, which takes seconds and an ONNX file does not need
        from bnfold.tracing.examples import required_inputs

        given, said = by_name(given, required_inputs(loaded.model))
        notes += said
        captured = capture(
            loaded, inputs=given.specs, data=given.data, dynamic=given.dynamic, opset=source.opset, seed=given.seed
        )
        unfolded, notes = captured.model, (*notes, *captured.notes)
    import onnx_ir

    assert isinstance(unfolded, onnx_ir.Model)
    given, said = by_name(given, input_names(unfolded))
    notes += said
    report = Report(
        command,
        FileInfo(os.fspath(source.path), loaded.sha256, loaded.format),
        operators_before=count_operators(unfolded),
        bytes_before=stored_bytes(unfolded, source.path if loaded.format == "onnx" else None),
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


def open_files(
    command: str,
    before: StrPath,
    after: StrPath | None,
    given: Given,
    tell: Progress,
    *,
    arch: str | None,
    arch_args: Mapping[str, str] | None,
    trust_pickle: bool,
    max_bytes: int | str,
) -> tuple[tuple[Subject, ...], Given, Report]:
    """One or two files as something to run, the data by the names of the inputs, and a report with nothing measured.

    Every later step takes them as they are opened here, so that a network is exported once for all of them.
    """
    tell("loading", None)
    from bnfold.loading.load import load

    paths = [before] if after is None else [before, after]
    loaded = [
        load(
            path,
            arch=arch,
            arch_args=arch_args,
            trust_pickle=trust_pickle,
            max_bytes=max_bytes,
            arch_may_be_superfluous=True,
        )
        for path in paths
    ]
    if arch is not None and not any(each.format in ("state-dict", "safetensors") for each in loaded):
        names = " and ".join(each.path for each in loaded)
        holds = "holds the network itself" if after is None else "hold the networks themselves"
        raise UsageError(f"--arch was given, and {names} {holds}", "Drop --arch.")
    given, notes = by_name(given, _input_names(loaded[0]))
    report = Report(
        command,
        FileInfo(os.fspath(before), loaded[0].sha256, loaded[0].format),
        operators_before=_operators(loaded[0]),
        bytes_before=_bytes(loaded[0]),
        notes=(*notes, *dict.fromkeys(note for each in loaded for note in each.notes)),
    )
    with ExitStack() as stack:  # which closes nothing: what is run lies in files, or in memory
        models = open_subjects([_to_run(each) for each in loaded], stack, given.data, given.specs, given.seed)
    if after is None:
        return models, given, report
    return (
        models,
        given,
        replace(
            report,
            output=FileInfo(os.fspath(after), loaded[1].sha256, loaded[1].format),
            operators_after=_operators(loaded[1]),
            bytes_after=_bytes(loaded[1]),
        ),
    )


def _to_run(loaded: Loaded) -> object:
    """What was loaded, ONNX as the file it lies in."""
    if loaded.format != "onnx":
        return loaded.model
    return OnnxSubject(os.path.abspath(loaded.path), loaded.model)  # type: ignore[arg-type]


def _input_names(loaded: Loaded) -> list[str]:
    """The inputs that must be fed."""
    if loaded.format == "onnx":
        return input_names(loaded.model)  # type: ignore[arg-type]
    if loaded.format == "pt2":
        from bnfold.tracing.programs import program_inputs

        return program_inputs(loaded.model)
    from bnfold.tracing.examples import required_inputs

    return required_inputs(loaded.model)


def _operators(loaded: Loaded) -> dict[str, int] | None:
    """Operators by name; None for a module, of which only an export could tell."""
    if loaded.format == "onnx":
        return count_operators(loaded.model)
    if loaded.format == "pt2":
        from bnfold.tracing.programs import count_nodes

        return count_nodes(loaded.model)  # type: ignore[arg-type]
    return None


def _bytes(loaded: Loaded) -> int | None:
    if loaded.format == "onnx":
        return stored_bytes(loaded.model, loaded.path)  # type: ignore[arg-type]
    from bnfold.data.tensors import weight_bytes

    return weight_bytes(loaded.model)


def verified(
    report: Report,
    before: object,
    after: object,
    given: Given,
    rtol: float | None,
    atol: float | None,
    tell: Progress,
    steps: Sequence[Step] = (),
    level: str = "full",
    per_site: bool = False,
) -> Report:
    """The report with the verdict on both models, which begin with these steps of preprocessing."""
    tell("verifying", None)
    verdict = verify_models(
        before,
        after,
        given.data,
        level=level,
        rtol=rtol,
        atol=atol,
        seed=given.seed,
        specs=given.specs,
        drawn=lambda feeds: raw(steps, feeds),
        per_site=per_site,
        progress=lambda done: tell("verifying", done),
    )
    return replace(report, verification=verdict)


def timed(
    report: Report, before: object, after: object | None, given: Given, options: TimingOptions, tell: Progress
) -> Report:
    """The report with their latencies."""
    timing = bench_models(
        before,
        after,
        given.data,
        runtimes=options.runtimes,
        device=options.device,
        threads=options.threads,
        min_time=options.min_time,
        seed=given.seed,
        specs=given.specs,
        progress=lambda done: tell("timing", done),
    )
    return replace(report, benchmark=timing)


def pictured(report: Report, before: object, after: object | None, tell: Progress) -> Report:
    """The report with the graphs and weights of both models, or with a note on why it shows none."""
    tell("drawing", None)
    from bnfold.reporting.picture.drawn import drawn

    try:
        return replace(report, picture=drawn(before, after, report.plan))
    except UnsupportedError as error:
        return replace(report, notes=(*report.notes, f"no graph is shown: {error.what}"))


def judged(report: Report, given: Given) -> Report:
    """The report with the caller's conditions and what it fails of them."""
    texts = tuple(condition.text for condition in given.conditions)
    return replace(report, failures=failures(given.conditions, report), conditions=texts)


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


def with_data_noted(report: Report, data: str) -> Report:
    """The report with a note on the file that holds the weights, if there is one."""
    if not data:
        return report
    return replace(report, notes=(*report.notes, f"the weights are in a file of their own beside the model, {data}"))


def check_level(level: str) -> None:
    """Refuses a level of verification that does not exist."""
    if level not in LEVELS:
        close = difflib.get_close_matches(level, LEVELS, n=1)
        guess = f"Did you mean {close[0]}? " if close else ""
        raise UsageError(f"no level of verification is called {level!r}", f"{guess}There are: {', '.join(LEVELS)}.")


def output_format(target: Path) -> str:
    """What an output is, by its suffix.

    Raises:
        UsageError: No format has it.
    """
    suffix = target.suffix.lower()
    if suffix not in FORMATS:
        close = difflib.get_close_matches(suffix, FORMATS, n=1)
        guess = f"Did you mean {close[0]}? " if close else ""
        said = (
            f"has the suffix {target.suffix}, which is no format" if suffix else "has no suffix, which picks the format"
        )
        raise UsageError(f"{target} {said}", f"{guess}Use one of: {', '.join(FORMATS)}.")
    return FORMATS[suffix]


def check_asked(
    target: Path,
    form: str,
    choices: Choices,
    options: TimingOptions,
    given: Given,
    *,
    opset: int | None,
    external_data: str,
) -> None:
    """Refuses what an output's format cannot have.

    Raises:
        UsageError: It cannot.
    """
    kind = "ONNX" if form == "onnx" else "PyTorch"
    usable = ONNX_RUNTIMES if form == "onnx" else TORCH_RUNTIMES
    for runtime in options.runtimes or ():
        if runtime not in usable:
            raise wrong_runtime(runtime, kind, usable)
    if form == "onnx":
        return
    asked = {
        f"--opset {opset}": opset is not None,
        f"--external-data {external_data}": external_data != "auto",
        f"--leftover {choices.leftover}": choices.leftover != "keep",
        "--norm-affine": choices.norm_affine,
        "--mean, --std or --scale": bool(given.preprocessing),
    }
    for flag, is_asked in asked.items():
        if is_asked:
            raise UsageError(
                f"{flag} was given, which is for ONNX, and {target} is not",
                "Drop it, or give the output the suffix .onnx.",
            )
