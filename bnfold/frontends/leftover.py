"""A BatchNorm that stays, in other operators: the steps that take its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.planning.leftover import is_split
from bnfold.units.affine import Array, round_once

BROADCASTS = 7  # the opset from which elementwise operators broadcast as NumPy does


class Step(NamedTuple):
    """One operator of a chain: its constants follow the feature among its operands."""

    op_type: str
    constants: tuple[NDArray[Any], ...] = ()
    attributes: tuple[ir.Attr, ...] = ()


def arithmetic_steps(scale: Array, shift: Array) -> list[Step]:
    """Mul and Add, or the one of them that does something; Mul where neither does."""
    steps = []
    if np.any(scale != 1) or not shift.any():
        steps.append(Step("Mul", (scale,)))
    if shift.any():
        steps.append(Step("Add", (shift,)))
    return steps


def leftover_steps(node: ir.Node, leftover: str, scale: Array, shift: Array) -> Sequence[Step] | None:
    """What a BatchNorm becomes.

    Args:
        node: The BatchNormalization.
        leftover: `"keep"`, `"affine"` or `"conv"`.
        scale: float64, broadcastable against its result.
        shift: float64, broadcastable against its result.

    Returns:
        The operators in its place; None where it stays one, also because the dtype cannot hold its scale or shift.
    """
    y, gamma = node.outputs[0], node.inputs[1]
    assert y.dtype is not None
    assert gamma is not None
    assert gamma.const_value is not None
    if leftover == "keep" or not all(_fits(array, y.dtype) for array in (scale, shift)):
        return None
    channels, rank = gamma.const_value.size, len(y.shape or ())
    if not is_split(leftover, rank):
        weight, bias = (np.broadcast_to(array.reshape(-1), channels) for array in (scale, shift))
        per_channel = weight.reshape(-1, *(1,) * (rank - 1))
        return [Step("Conv", (per_channel, bias) if bias.any() else (per_channel,), (ir.AttrInt64("group", channels),))]
    steps = arithmetic_steps(scale, shift)
    if (node.version or BROADCASTS) >= BROADCASTS:
        return steps
    along = (ir.AttrInt64("broadcast", 1), ir.AttrInt64("axis", 1))
    return [Step(op_type, tuple(c.reshape(-1) for c in constants), along) for op_type, constants, _ in steps]


def _fits(array: Array, dtype: ir.DataType) -> bool:
    return bool(np.isfinite(round_once(array, dtype.numpy()).astype(np.float64)).all())
