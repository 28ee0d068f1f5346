"""LayerNormalization and its kin: an operator that keeps its unit, and behind it the affine of its scale and bias.

    y = scale ⊙ norm(x) + bias        norm(x) is rigid; the affine is like any other, and may vanish into what reads it

The operator itself stays, with a scale of ones and no bias (zeros where the opset wants one). Only where there is one
number per channel: a scale over several axes has no place in the weights of a Linear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.frontends.context import Context
from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.graph import Affine, Op, Rigid

PER_CHANNEL = 21  # the opset from which GroupNormalization has a scale per channel, not per group


class Parameters(NamedTuple):
    """The scale and bias of a normalisation, one number per channel, and the axis of the channels."""

    scale: NDArray[np.generic]
    bias: NDArray[np.generic] | None
    axis: int


def read_norm(node: ir.Node, ctx: Context) -> list[Op]:
    """A normalisation and the affine behind it; where there is none that could go, the operator as a whole."""
    found = _parameters(node, ctx)
    if found is None:
        return ctx.rigid(node, Reason.NONLINEAR)
    y, label = node.outputs[0], ctx.label(node)
    shape = ctx.shape(y)
    assert shape is not None
    full = (-1,) + (1,) * (len(shape) - 1 - found.axis)
    scale = found.scale.astype(np.float64).reshape(full)
    shift = np.zeros_like(scale) if found.bias is None else found.bias.astype(np.float64).reshape(full)
    if np.all(scale == 1) and not shift.any():
        return ctx.rigid(node, Reason.NONLINEAR)
    inner = ctx.extra(node, "norm", shape)
    features = tuple(v for v in node.inputs if v is not None and not ctx.is_const(v))
    return [
        Rigid(f"{label}#norm", features, (inner, *node.outputs[1:]), Reason.NONLINEAR),
        Affine(label, inner, y, scale, shift, within=True, kind=node.op_type),
    ]


def _parameters(node: ir.Node, ctx: Context) -> Parameters | None:
    """What a normalisation multiplies by and adds; None where that is not the same at every run, or not per channel."""
    rank, (scale, bias) = ctx.rank(node.outputs[0]) or 0, ctx.constants([*node.inputs, None, None][1:3])
    held = [v for v in node.inputs[1:3] if v is not None]
    if scale is None or any(not ctx.is_const(v) for v in held) or rank < 2:
        return None
    axis = CHANNEL_AXIS[node.op_type] % rank
    channels = (ctx.shape(node.outputs[0]) or ())[axis]
    if not isinstance(channels, int):
        return None
    if node.op_type == "GroupNormalization" and (node.version or PER_CHANNEL) < PER_CHANNEL:
        repeats = channels // max(1, scale.size)
        scale, bias = np.repeat(scale, repeats), None if bias is None else np.repeat(bias, repeats)
    if scale.shape != (channels,) or (bias is not None and bias.shape != (channels,)):
        return None
    return Parameters(scale, bias, axis)


def unit_parameters(node: ir.Node) -> tuple[Array, Array | None]:
    """The scale and bias with which a normalisation does nothing but normalise, in their stored shapes."""
    scale = node.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    ones = np.ones(scale.const_value.size)
    return ones, None if node.op_type not in NEEDS_BIAS else np.zeros(ones.size)


def has_room(node: ir.Node, scale: Array) -> bool:
    """Whether a normalisation has a number for each of these channels."""
    stored = node.inputs[1]
    return stored is not None and stored.const_value is not None and stored.const_value.size == scale.size


CHANNEL_AXIS = {
    "GroupNormalization": 1,
    "InstanceNormalization": 1,
    "LayerNormalization": -1,
    "RMSNormalization": -1,
    "SimplifiedLayerNormalization": -1,
}
NEEDS_BIAS = ("GroupNormalization", "InstanceNormalization")
HAS_BIAS = (*NEEDS_BIAS, "LayerNormalization")
