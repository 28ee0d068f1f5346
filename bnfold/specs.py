"""The words of `--input`, `--dynamic`, `--mean`, `--std` and `--scale`: what a user says about a model's inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bnfold.errors import UsageError

DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "bool", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
_DIMS = re.compile(r"\d{1,9}(?:\s*(?P<sign>[x×,])\s*\d{1,9}(?:\s*(?P=sign)\s*\d{1,9})*)?")

_BYTES = re.compile(r"(?P<number>\d{1,18}(?:\.\d{1,6})?)\s*(?P<unit>[kMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

MAX_BYTES = "32GB"  # of a model, unless the caller says otherwise

ChannelValues = Mapping[str | None, tuple[float, ...]]  # by input; None for the only one there is
ChannelNumbers = float | str | Sequence[float] | Sequence[str] | Mapping[str, float | Sequence[float]]


@dataclass(frozen=True)
class InputSpec:
    """What the user says about one input.

    Attributes:
        name: The input; None for "the next one in the model's order".
        shape: Every dimension.
        dtype: A NumPy dtype name; None leaves it to the model.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: str | None = None


@dataclass(frozen=True)
class DynamicDim:
    """A dimension that must stay open in the exported model, under a name."""

    name: str
    axis: int
    symbol: str


def parse_input(text: str) -> InputSpec:
    """Reads `[NAME:]SHAPE[:DTYPE]`; a name may itself hold colons.

    Raises:
        UsageError: It does not read.
    """
    parts = text.split(":")
    dtype = parts.pop().strip() if len(parts) > 1 and parts[-1].strip() in DTYPES else None
    shape = _parse_shape(parts.pop())
    if shape is None:
        raise UsageError(
            f"--input {text!r} is not [NAME:]SHAPE[:DTYPE]",
            "Write it like 1x3x224x224, x:1,3,224,224 or ids:[1,128]:int64.",
        )
    if 0 in shape:
        raise UsageError(f"--input {text!r} has a dimension of 0", "Give every dimension a size of at least 1.")
    return InputSpec(":".join(parts) or None, shape, dtype)


def parse_dynamic(text: str) -> DynamicDim:
    """Reads `NAME:AXIS=SYMBOL`.

    Raises:
        UsageError: It does not read.
    """
    match = re.fullmatch(r"(?P<name>.+):(?P<axis>\d+)=(?P<symbol>[A-Za-z_]\w*)", text)
    if match is None:
        raise UsageError(
            f"--dynamic {text!r} is not NAME:AXIS=SYMBOL",
            "Write it like x:0=batch: the input's name, the dimension's number, a name for it.",
        )
    return DynamicDim(match["name"], int(match["axis"]), match["symbol"])


def parse_values(flag: str, given: ChannelNumbers | None) -> ChannelValues:
    """Reads the values of `--mean`, `--std` or `--scale`, one per channel or one for all, by the input they are for.

    Args:
        flag: `"mean"`, `"std"` or `"scale"`.
        given: `[NAME:]NUMBER,NUMBER,...` once or several times, or numbers, or a mapping from inputs to numbers.

    Raises:
        UsageError: It does not read, or is 0 where that would leave nothing.
    """
    if given is None:
        return {}
    found: dict[str | None, tuple[float, ...]] = {}
    for name, values in _named_values(flag, given):
        if name in found:
            whose = "" if name is None else f" for input {name!r}"
            raise UsageError(f"--{flag} is given twice{whose}", "Give it once, as NUMBER,NUMBER,..., one per channel.")
        if not values or not all(math.isfinite(value) for value in values):
            raise _not_numbers(flag, given)
        if flag == "std" and 0 in values:
            raise UsageError("--std has a 0, and is divided by", "Pass the standard deviations of the training data.")
        if flag == "scale" and 0 in values:
            raise UsageError("--scale has a 0, which makes every input the same", "Pass a factor, like 1/255.")
        found[name] = values
    return found


def _named_values(flag: str, given: ChannelNumbers) -> Iterable[tuple[str | None, tuple[float, ...]]]:
    if isinstance(given, str):
        return [_parse_values(flag, given)]
    if isinstance(given, Mapping):
        return [(name, _numbers(flag, values)) for name, values in given.items()]
    if isinstance(given, Sequence) and all(isinstance(value, str) for value in given):  # also where there is none
        return [_parse_values(flag, str(text)) for text in given]
    return [(None, _numbers(flag, given))]


def _numbers(flag: str, given: object) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in given) if isinstance(given, Iterable) else (float(given),)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise _not_numbers(flag, given) from error


def _parse_values(flag: str, text: str) -> tuple[str | None, tuple[float, ...]]:
    """Reads `[NAME:]NUMBER,NUMBER,...`, where a number may be a fraction; a name may itself hold colons."""
    name, colon, numbers = text.rpartition(":")
    try:
        values = tuple(_fraction(number) for number in numbers.split(","))
    except (ValueError, ZeroDivisionError) as error:
        raise _not_numbers(flag, text) from error
    return name if colon else None, values


def _fraction(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)


def _not_numbers(flag: str, given: object) -> UsageError:
    return UsageError(
        f"--{flag} {given!r} is not [NAME:]NUMBER,NUMBER,...",
        "Write it like 0.485,0.456,0.406, one number per channel, a single 0.5 for all, or image:0.5 for one input.",
    )


def parse_bytes(flag: str, given: int | str) -> int:
    """Reads a number of bytes, `500MB` or `8G` for short.

    Raises:
        UsageError: It does not read, or is not positive.
    """
    match = _BYTES.fullmatch(str(given).strip())
    count = 0 if match is None else int(float(match["number"]) * _UNITS[match["unit"].lower()])
    if count < 1:
        raise UsageError(f"{flag} {given!r} is no number of bytes", "Write it like 500MB, 8GB or 8000000000.")
    return count


def written(shape: Sequence[int | None]) -> str:
    """A shape as it is written in messages, an open dimension as `?`."""
    return "x".join("?" if dim is None else str(dim) for dim in shape) or "a scalar"


def _parse_shape(text: str) -> tuple[int, ...] | None:
    dims = text.strip()
    if dims.startswith("[") and dims.endswith("]"):
        dims = dims[1:-1].strip()
        if not dims:
            return ()
    if not _DIMS.fullmatch(dims):
        return None
    return tuple(int(dim) for dim in re.split("[x×,]", dims))
