"""The words of `--input` and `--dynamic`: what a user says about a model's inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bnfold.errors import UsageError

DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "bool", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
_DIMS = re.compile(r"\d{1,9}(?:\s*(?P<sign>[x×,])\s*\d{1,9}(?:\s*(?P=sign)\s*\d{1,9})*)?")


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
