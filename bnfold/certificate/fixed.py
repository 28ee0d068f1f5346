"""Channels of the model after that are constants: a row of zeros in a weight writes its bias and nothing else.

A gamma of 0 makes such channels. What is constant before *and* after may be in any unit, so the two sides are compared
as constants there. One pass over the model, in topological order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bnfold.certificate.bounds import Array, Bound, Rounding
from bnfold.certificate.forms import Form, Mismatch, Unit, settled
from bnfold.certificate.laws import law_of
from bnfold.certificate.meanings import meaning
from bnfold.certificate.pair import Pair
from bnfold.certificate.sides import Side, rank_of, sizes_of
from bnfold.certificate.single import counts_zeros
from bnfold.certificate.units import silent
from bnfold.frontends.context import attr

HERE = -7.25e300  # stands for "not constant" where arrays are only moved and compared
MOVING = (
    "AveragePool",
    "Expand",
    "Flatten",
    "Gather",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
PASSING = ("GlobalAveragePool", "GlobalMaxPool", "MaxPool")


class Fixed:
    """The constant channels of the values of a graph.

    Args:
        side: The model after.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self._known: dict[object, Array] = {}

    def of(self, value: object) -> Bound | None:
        """The constants, broadcastable against the value; NaN where a channel is not constant. None where none is."""
        known = self._known.get(value)
        if known is None or not isinstance(value, ir.Value) or value.dtype is None:
            return None
        doubt = Rounding.of(value.dtype.numpy(), 2 * self.side.ulps).bound(np.nan_to_num(known))
        return Bound(known, doubt)

    def read(self, graph: ir.Graph) -> None:
        """Note what every operator makes constant."""
        for node in graph:
            try:
                found = self._result(node)
            except Mismatch:
                continue
            if found is not None and np.isfinite(found).any():
                self._known[node.outputs[0]] = narrow(found)

    def _result(self, node: ir.Node) -> Array | None:
        form = meaning(self.side, node, lambda value: Form.of(value, rank_of(value)))
        if form is not None:
            form = settled(form, self.of)
            return np.where(silent(form), form.const.mid, np.nan)
        known = self._known.get(node.inputs[0]) if node.inputs else None
        function = FUNCTIONS.get(node.op_type)
        if node.op_type == "Concat":
            return self._concat(node)
        if node.op_type == "Mul" and len(node.inputs) == 2:
            return self._product(node)
        if known is None:
            return None
        if node.op_type == "PRelu":
            slope = self.side.array(node.inputs[1])
            return None if slope is None else np.where(known < 0, aligned(slope, known.ndim) * known, known)
        if function is not None:
            return function(node, known)
        if node.op_type in PASSING:
            return known if all(size == 1 for size in known.shape[2:]) else None
        if node.op_type == "AveragePool":  # zeros that it counts are other numbers
            known = np.where(known == 0, 0.0, np.nan) if counts_zeros(node) else known
        return self._moved(node, known) if node.op_type in MOVING else None

    def _product(self, node: ir.Node) -> Array | None:
        """What is 0 times anything, and a product of constants."""
        rank = rank_of(node.outputs[0])
        known = [self._known.get(value) for value in node.inputs]
        if all(array is None for array in known):
            return None
        one, two = (np.full((1,) * rank, np.nan) if array is None else aligned(array, rank) for array in known)
        return np.where((one == 0) | (two == 0), 0.0, one * two)

    def _moved(self, node: ir.Node, known: Array) -> Array | None:
        """Constants of the operand at the places they have in the results; those of the first are returned."""
        marked = Bound.exact(np.where(np.isfinite(known), known, HERE))
        unit = Unit(node.inputs[0], marked, Bound.filled(0.0, known.ndim))
        pair = Pair(node, node, self.side, self.side, lambda _: None)
        results = law_of(node)(pair, [unit, *([None] * (len(node.inputs) - 1))])
        for result, value in zip(results, node.outputs, strict=False):
            found = np.where(result.scale.mid == HERE, np.nan, result.scale.mid)
            if np.isfinite(found).any():
                self._known[value] = narrow(found)
        return None

    def _concat(self, node: ir.Node) -> Array | None:
        axis = int(attr(node, "axis", 1)) % rank_of(node.outputs[0])
        values = [v for v in node.inputs if v is not None]
        sizes = [sizes_of(v)[axis] for v in values]
        parts = [self._known.get(v) for v in values]
        if all(part is None for part in parts) or not all(isinstance(size, int) for size in sizes):
            return None
        across = [part.take([0], axis=axis).shape for part in parts if part is not None]
        shape = list(np.broadcast_shapes(*across, (1,) * rank_of(node.outputs[0])))
        wide = []
        for part, size in zip(parts, sizes, strict=True):
            shape[axis] = int(size)  # type: ignore[arg-type]
            wide.append(np.broadcast_to(np.full((1,) * len(shape), np.nan) if part is None else part, shape))
        return np.concatenate(wide, axis=axis)


def narrow(array: Array) -> Array:
    """The same constants with size 1 along axes on which they do not vary."""
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis=axis) if size > 1 else array
        if size > 1 and ((first == array) | (np.isnan(first) & np.isnan(array))).all():
            array = first
    return array


def aligned(array: Array, rank: int) -> Array:
    """A constant that broadcasts against a tensor, with all of its axes."""
    return array.astype(np.float64).reshape((1,) * (rank - array.ndim) + array.shape)


def _relu(_: ir.Node, x: Array) -> Array:
    return np.where(np.isfinite(x), np.maximum(x, 0.0), np.nan)


def _leaky(node: ir.Node, x: Array) -> Array:
    return np.where(x < 0, float(attr(node, "alpha", 0.01)) * x, x)


FUNCTIONS: dict[str, Callable[[ir.Node, Array], Array]] = {
    "Abs": lambda _, x: np.abs(x),
    "LeakyRelu": _leaky,
    "Relu": _relu,
}
