"""What the caller asked for, read and checked before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bnfold.data.arrays import for_the_only_input
from bnfold.data.feeds import load_input_data
from bnfold.errors import UsageError
from bnfold.pipeline.preprocess import Preprocessing
from bnfold.planning.choices import Choices
from bnfold.reporting.conditions import Condition, check_measurable, parse_condition
from bnfold.running.runners import ONNX_RUNTIMES, TORCH_RUNTIMES, wrong_runtime
from bnfold.specs import MAX_BYTES, ChannelNumbers, DynamicDim, InputSpec, parse_dynamic, parse_input, parse_values
from bnfold.wording import guess, guess_among

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
    command: str,
    seed: int,
    mean: ChannelNumbers | None = None,
    std: ChannelNumbers | None = None,
    scale: ChannelNumbers | None = None,
    max_bytes: int | str = MAX_BYTES,
) -> Given:
    """Reads what is given as text or as a file.

    Raises:
        UsageError: Something does not read, or asks for what the command does not do.
        UnreadableError: The file with the input data does not.
    """
    conditions = tuple(parse_condition(text) for text in fail_on)
    check_measurable(conditions, command)
    return Given(
        specs=tuple(parse_input(spec) if isinstance(spec, str) else spec for spec in inputs),
        data=load_input_data(input_data, max_bytes) if isinstance(input_data, (str, os.PathLike)) else input_data,
        dynamic=tuple(parse_dynamic(dim) if isinstance(dim, str) else dim for dim in dynamic),
        conditions=conditions,
        seed=seed,
        preprocessing=Preprocessing(parse_values("mean", mean), parse_values("std", std), parse_values("scale", scale)),
    )


def by_name(given: Given, names: Sequence[str]) -> tuple[Given, tuple[str, ...]]:
    """What the caller said, with the data under the name of a model's only input, and a note if that is another one."""
    if not isinstance(given.data, Mapping):
        return given, ()
    data, note = for_the_only_input(given.data, names)
    return replace(given, data=data), (note,) if note else ()


def check_paths(function: str, *paths: object) -> None:
    """Refuses a model in memory where a file is read.

    Raises:
        UsageError: Something is no path.
    """
    for path in paths:
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise UsageError(
                f"bnfold.{function} takes a path, not a {type(path).__name__}",
                "Fold a network or model that is in memory with bnfold.fold(model, example_inputs).",
            )


def check_level(level: str) -> None:
    """Refuses a level of verification that does not exist."""
    if level not in LEVELS:
        raise UsageError(f"no level of verification is called {level!r}", guess_among(level, LEVELS))


def output_format(target: Path) -> str:
    """What an output is, by its suffix.

    Raises:
        UsageError: No format has it.
    """
    suffix = target.suffix.lower()
    if suffix not in FORMATS:
        said = (
            f"has the suffix {target.suffix}, which is no format" if suffix else "has no suffix, which picks the format"
        )
        raise UsageError(f"{target} {said}", f"{guess(suffix, list(FORMATS))}Use one of: {', '.join(FORMATS)}.")
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
