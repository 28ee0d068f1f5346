"""The numbers stored in one of the two models.

In the model before every stored number is exact; in the model after it is known up to the rounding that stored it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.certificate.bounds import Bound, Rounding
from bnfold.certificate.forms import Form, Mismatch
from bnfold.frontends.context import FLOATS

Of = Callable[[ir.Value], Form]
Size = int | str | None


class Side:
    """One of the two models.

    Args:
        ulps: By how many units in the last place its stored numbers may be off. For the model before it is 0, unless
            a fold may have rounded on the way: then its vectors (biases, parameters of BatchNorms) get a part of that.
        is_before: Whether it is the model before.
        fixed: What constant a value of the model after is, per channel, NaN where it is none; None where it never is.
    """

    def __init__(
        self, ulps: float, fixed: Callable[[Any], Bound | None] = lambda _: None, *, is_before: bool = False
    ) -> None:
        self.ulps = ulps
        self.is_before = is_before
        self.fixed = fixed
        self._arrays: dict[ir.Value, NDArray[Any]] = {}

    def array(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The numbers behind a constant; None for what is computed."""
        if value is None or value.const_value is None or not value.is_initializer() or value.is_graph_input():
            return None
        if value not in self._arrays:
            self._arrays[value] = value.const_value.numpy()
        return self._arrays[value]

    def is_feature(self, value: ir.Value | None) -> bool:
        """Whether a value is there and computed."""
        return value is not None and self.array(value) is None

    def bound(self, value: ir.Value | None) -> Bound | None:
        """A constant of floats with its rounding."""
        array = self.array(value)
        if array is None or value is None or value.dtype not in FLOATS:
            return None
        wide = array.astype(np.float64)
        if not self.ulps or (self.is_before and array.size != max(array.shape, default=1)):
            return Bound.exact(wide)
        return Rounding.of(array.dtype, self.ulps).of_stored(wide)


def rank_of(value: ir.Value) -> int:
    """The number of axes of a value.

    Raises:
        Mismatch: It is not known.
    """
    if value.shape is None:
        raise Mismatch(f"the rank of {value.name} is not known")
    return len(value.shape)


def sizes_of(value: ir.Value) -> tuple[Size, ...]:
    """The shape of a value, None or a name for what is not known."""
    if value.shape is None:
        raise Mismatch(f"the rank of {value.name} is not known")
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
