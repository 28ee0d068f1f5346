"""How an operator is called: its attributes, the version of its domain, and what its operands are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Operator = Callable[..., Any]


class Elsewhere(Exception):
    """This operator, called so, is left to the reference implementation."""


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        op: The operator's type.
        attrs: Its attributes that are no graphs.
        opset: The version of its domain.
        outputs: How many outputs are asked for.
    """

    op: str
    attrs: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or a default."""
        return self.attrs.get(name, default)

    def axes(self, given: Tensor | None, rank: int, name: str = "axes") -> list[int] | None:
        """Axes from an operand or the attribute of older versions, counted from the front; None where not given."""
        found = numbers(given) if given is not None else self.get(name)
        return None if found is None else [int(axis) % rank if rank else 0 for axis in found]


def numbers(tensor: Tensor) -> list[Any]:
    """A tensor's elements as Python numbers."""
    found = tensor.reshape(-1).tolist()
    return list(found)


def is_floating(array: NDArray[Any]) -> bool:
    """Whether an array holds floats of some width, those of ml_dtypes included."""
    if array.dtype.kind == "f":
        return True
    return array.dtype.kind == "V" and "float" in array.dtype.name


def widened(array: NDArray[Any]) -> Tensor | NDArray[Any]:
    """An array as the evaluator holds it: floats as float64, exactly; what torch has no type for stays an array."""
    if is_floating(array):
        return torch.from_numpy(np.array(array, dtype=np.float64))
    if array.dtype.kind == "V":  # int4 and its like
        array = array.astype(np.int8 if array.dtype.name.startswith("int") else np.uint8)
    if array.dtype.kind in "OUS":
        return array
    return torch.from_numpy(np.array(array, order="C"))


def padded(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    """The last axes with as many elements before and after as ONNX says; a negative number cuts."""
    half = len(pads) // 2
    flat = [size for axis in reversed(range(half)) for size in (pads[axis], pads[axis + half])]
    return F.pad(x, flat, value=value) if any(flat) else x
