"""LayerNorm, RMSNorm, GroupNorm, InstanceNorm: `scale·norm(x) + bias`, two operators to the solver, if that is wanted.

    norm(x) is rigid; the affine is like any other, and may vanish into what reads it

The operator itself stays, with a scale of ones and a bias of zeros where it had one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.nodes import arguments, fake, opname, sole_result
from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.graph import Affine, Op, Rigid

CHANNEL_AXIS = {
    "group_norm": 1,
    "instance_norm": 1,
    "layer_norm": -1,
    "native_group_norm": 1,
    "native_layer_norm": -1,
    "rms_norm": -1,
}


def read_norm(node: fx.Node, ctx: Context) -> list[Op]:
    """A normalisation and the affine behind it; where there is none that could go, the operator as a whole."""
    found = _parameters(node, ctx) if ctx.norm_affine and node.name not in ctx.held else None
    y = sole_result(node)
    if found is None or y is None:
        return ctx.rigid(node, Reason.NONLINEAR)
    scale, shift = found
    if np.all(scale == 1) and not shift.any():
        return ctx.rigid(node, Reason.NONLINEAR)
    label, inner = ctx.label(node), ctx.extra(node, "norm", ctx.shape(y))
    return [
        Rigid(f"{label}#norm", ctx.features(node), (inner,), Reason.NONLINEAR),
        Affine(label, inner, y, scale, shift, within=True, kind=opname(node)),
    ]


def _parameters(node: fx.Node, ctx: Context) -> tuple[Array, Array] | None:
    """What a normalisation multiplies by and adds, shaped for its result; None where that is not one per channel."""
    named: dict[str, Any] = arguments(node)
    weight, bias = named.get("weight"), named.get("bias")
    y = sole_result(node)
    x = fake(named["input"])
    if y is None or x is None or not ctx.is_const(weight) or (bias is not None and not ctx.is_const(bias)):
        return None
    if len(named.get("normalized_shape", (0,))) != 1 or named.get("use_input_stats") is False:
        return None
    rank = ctx.rank(y)
    axis = CHANNEL_AXIS[opname(node)] % max(rank, 1)
    scale, shift = ctx.const(weight), ctx.const(bias)
    if rank < 2 or scale is None or scale.shape != (ctx.shape(y)[axis],) or x.dtype != y.meta["val"].dtype:
        return None
    full = (-1,) + (1,) * (rank - 1 - axis)
    wide = scale.astype(np.float64).reshape(full)
    return wide, np.zeros_like(wide) if shift is None else shift.astype(np.float64).reshape(full)
