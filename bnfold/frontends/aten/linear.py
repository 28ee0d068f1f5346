"""ATen operators with constant weights: where their weights, biases and channels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.nodes import arguments, opname, position
from bnfold.reasons import Reason
from bnfold.units.affine import Array, Kernel
from bnfold.units.graph import Linear, Mix, Op
from bnfold.units.window import Window, convolution_kernel

CONVOLUTIONS = {
    "conv1d": 1,
    "conv2d": 2,
    "conv3d": 3,
    "conv_transpose1d": 1,
    "conv_transpose2d": 2,
    "conv_transpose3d": 3,
    "convolution": 0,
}


def read_convolution(node: fx.Node, ctx: Context) -> list[Op]:
    """Conv and ConvTranspose in any number of dimensions, any groups, with or without a batch axis."""
    named = arguments(node)
    x, stored, bias = named["input"], named["weight"], named.get("bias")
    weight = ctx.const(stored)
    if weight is None or not ctx.feature(x) or (bias is not None and not ctx.is_const(bias)):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    transposed = bool(named.get("transposed", opname(node).startswith("conv_transpose")))
    groups = int(named["groups"])
    n = weight.ndim - 2
    axis = ctx.rank(x) - n - 1
    sizes = (None,) * n if ctx.any_size else ctx.shape(x)[axis + 1 :]
    window = _window(named, sizes, weight.shape[2:], transposed)
    kernel = convolution_kernel(weight, groups, window, transposed)
    return [_linear(node, ctx, x, stored, axis, kernel, bias is not None, window)]


def _window(
    named: dict[str, Any], sizes: Sequence[int | str | None], taps: tuple[int, ...], transposed: bool
) -> Window:
    """How a convolution slides."""
    n = len(taps)
    strides, dilations = _each(named["stride"] or 1, n), _each(named["dilation"] or 1, n)
    padding = named["padding"]
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(taps, dilations, strict=True)]
        begin, end = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    else:
        begin = end = _each(0 if padding == "valid" else padding, n)
    extra = _each(named["output_padding"], n) if transposed else ()
    known = tuple(s if isinstance(s, int) else None for s in sizes)
    return Window(taps, strides, dilations, begin, end, known, transposed, extra)


def pooling_window(node: fx.Node, ctx: Context) -> Window:
    """How an average over windows slides."""
    named = arguments(node)
    n = next(d for d in (1, 2, 3) if f"{d}d" in opname(node))
    kernel, padding = _each(named["kernel_size"], n), _each(named["padding"], n)
    strides = _each(named["stride"] or named["kernel_size"], n)
    x = node.args[0]
    assert isinstance(x, fx.Node)
    sizes = (None,) * n if ctx.any_size else ctx.shape(x)[-n:]
    known = tuple(s if isinstance(s, int) else None for s in sizes)
    return Window(kernel, strides, (1,) * n, padding, padding, known)


def _each(value: Any, n: int) -> tuple[int, ...]:
    """One number per spatial axis: torch lets a single one stand for all."""
    given = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return tuple(given * n if len(given) == 1 else given)


def read_linear(node: fx.Node, ctx: Context) -> list[Op]:
    """`x·Wᵀ + b` along the last axis."""
    named = arguments(node)
    x, stored, bias = named["input"], named["weight"], named["bias"]
    weight = ctx.const(stored)
    if weight is None or weight.ndim != 2 or not ctx.feature(x) or (bias is not None and not ctx.is_const(bias)):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    kernel = Kernel(lambda: weight, weight.shape, out_axis=0, in_axis=1)
    return [_linear(node, ctx, x, stored, ctx.rank(x) - 1, kernel, bias is not None)]


def read_addmm(node: fx.Node, ctx: Context) -> list[Op]:
    """`beta·b + alpha·x·W` with constant `b` and `W`."""
    named = arguments(node)
    bias, x, stored = named["self"], named["mat1"], named["mat2"]
    weight, constant = ctx.const(stored), ctx.const(bias)
    if weight is None or not ctx.feature(x) or constant is None or not named["beta"]:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    if constant.shape not in ((weight.shape[1],), (1, weight.shape[1])):
        return ctx.rigid(node, Reason.BOUNDARY)
    kernel = Kernel(lambda: weight, weight.shape, out_axis=1, in_axis=0, gain=float(named["alpha"]))
    return [_linear(node, ctx, x, stored, 1, kernel, has_bias=True)]


def read_matrix_product(node: fx.Node, ctx: Context) -> list[Op]:
    """mm, bmm, matmul: a linear operator with a constant matrix, a mixing of positions without."""
    left, right = node.args[0], node.args[1]
    if ctx.feature(left) and ctx.feature(right):
        assert isinstance(left, fx.Node)
        assert isinstance(right, fx.Node)
        if min(ctx.rank(left), ctx.rank(right)) < 2:
            return ctx.rigid(node, Reason.NONLINEAR)
        return [Mix(ctx.label(node), left, right, node, unit_sum=is_softmax(left, ctx))]
    from_left = ctx.is_const(left)
    x, stored = (right, left) if from_left else (left, right)
    weight = ctx.const(stored)
    if weight is None or not isinstance(x, fx.Node) or not isinstance(stored, fx.Node) or not ctx.feature(x):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    if weight.ndim != 2 or ctx.rank(x) < 2:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    axis = ctx.rank(x) - (2 if from_left else 1)
    kernel = Kernel(lambda: weight, weight.shape, out_axis=0 if from_left else 1, in_axis=1 if from_left else 0)
    return [_linear(node, ctx, x, stored, axis, kernel, has_bias=False, bias_slot=False)]


def is_softmax(node: fx.Node, ctx: Context) -> bool:
    """Whether rows (the last axis) sum to 1: a softmax over it, seen through what does nothing."""
    while opname(node) in ("alias", "clone", "contiguous", "detach", "dropout", "expand", "view", "_unsafe_view"):
        if opname(node) == "dropout" and arguments(node)["train"]:
            return False
        source = node.all_input_nodes[0]
        if ctx.shape(source)[-1:] != ctx.shape(node)[-1:]:
            return False
        node = source
    if opname(node) not in ("softmax", "_softmax"):
        return False
    return int(arguments(node)["dim"]) % ctx.rank(node) == ctx.rank(node) - 1


def _linear(
    node: fx.Node,
    ctx: Context,
    x: fx.Node,
    stored: fx.Node,
    axis: int,
    kernel: Kernel,
    has_bias: bool,
    window: Window | None = None,
    bias_slot: bool = True,
) -> Linear:
    return Linear(
        ctx.label(node),
        x,
        node,
        x_axis=axis,
        y_axis=axis,
        kernel=kernel,
        weight=ctx.identity(stored),
        window=window,
        has_bias=has_bias,
        bias_slot=bias_slot,
        frozen=_frozen(node, ctx, stored),
    )


def _frozen(node: fx.Node, ctx: Context, stored: fx.Node) -> Reason | None:
    """Why a weight must stay as it is: something reads it in another way, or hands it out."""
    if node.name in ctx.held:
        return Reason.BOUNDARY  # whoever carries out the plan cannot change it, not even by a copy
    if ctx.entangled(stored):
        return Reason.SHARED_WEIGHT
    for user in ctx.readers(stored):
        if user is node or ctx.is_const(user):
            continue
        if user.op == "output":
            return Reason.IO
        if _way_of_reading(user, stored, ctx) != _way_of_reading(node, stored, ctx):
            return Reason.SHARED_WEIGHT
    return None


def _way_of_reading(node: fx.Node, stored: fx.Node, ctx: Context) -> object:
    """What must be alike in two operators for one change of their weight to serve both."""
    same = [i for i, arg in enumerate(node.args) if isinstance(arg, fx.Node) and _same_constant(arg, stored, ctx)]
    if len(same) != 1:
        return object()
    return opname(node), same, arguments(node).get("groups") if opname(node) in CONVOLUTIONS else None


def _same_constant(a: fx.Node, b: fx.Node, ctx: Context) -> bool:
    return ctx.identity(a) == ctx.identity(b)


def weight_position(node: fx.Node, ctx: Context) -> tuple[int, ...]:
    """Where the weight stands among the arguments of a linear operator."""
    name = opname(node)
    if name in CONVOLUTIONS or name == "linear":
        return (1,)
    if name == "addmm":
        return (2,)
    return (0,) if ctx.is_const(node.args[0]) else (1,)


def bias_position(node: fx.Node) -> tuple[int, ...] | None:
    """Where the bias stands; None for an operator that takes none."""
    name = opname(node)
    if name in CONVOLUTIONS or name == "linear":
        return (position(node, "bias"),)
    return (0,) if name == "addmm" else None


def stored_bias(node: fx.Node, ctx: Context) -> tuple[Array | None, float]:
    """The bias of a linear operator as float64[out_channels], None for none, and the factor before what is stored."""
    place = bias_position(node)
    held = None if place is None or len(node.args) <= place[0] else node.args[place[0]]
    held = node.kwargs.get("bias") if held is None else held
    array: NDArray[Any] | None = ctx.const(held)
    if array is None:
        return None, 1.0
    factor = float(arguments(node)["beta"]) if opname(node) == "addmm" else 1.0
    return array.astype(np.float64).reshape(-1) * factor, factor
