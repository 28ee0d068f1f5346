"""ATen operators as kinds of the solver's graph: one reader per operator, one line per operator in the table.

A reader returns what the operator means. Anything it cannot vouch for it returns as `Rigid`, which is always right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from bnfold.frontends.aten.context import FLOATS, Context, wide
from bnfold.frontends.aten.linear import (
    CONVOLUTIONS,
    pooling_window,
    read_addmm,
    read_convolution,
    read_linear,
    read_matrix_product,
)
from bnfold.frontends.aten.nodes import BATCH_NORMS, arguments, fake, opname, overload, sole_result
from bnfold.frontends.aten.normalisations import CHANNEL_AXIS, read_norm
from bnfold.frontends.aten.recurrent import RECURRENT, read_recurrent
from bnfold.frontends.aten.structure import (
    read_cat,
    read_channel_shuffle,
    read_embedding,
    read_expand,
    read_flip,
    read_identity,
    read_index,
    read_index_select,
    read_nothing,
    read_pad,
    read_permute,
    read_pixel_shuffle,
    read_pixel_unshuffle,
    read_repeat,
    read_repeat_interleave,
    read_roll,
    read_select,
    read_slice,
    read_split,
    read_stack,
    read_unbind,
)
from bnfold.frontends.context import squeeze_constant
from bnfold.reasons import Reason
from bnfold.units.affine import Array, batch_norm_affine
from bnfold.units.graph import Add, Affine, Gate, Homogeneous, Mix, Offset, Op, Rigid, Select, Shape, Spatial

Reader = Callable[[fx.Node, Context], list[Op]]


def read_batch_norm(node: fx.Node, ctx: Context) -> list[Op]:
    """BatchNorm in all its spellings, at inference."""
    label = ctx.label(node)
    if label in ctx.excluded:
        ctx.kept[label] = Reason.EXCLUDED
        return ctx.rigid(node, Reason.NONLINEAR)  # what it is to those around it, whose units it takes as they are
    norm = batch_norm(node, ctx)
    if isinstance(norm, Reason):
        ctx.kept[label] = norm
        return ctx.rigid(node, norm)
    scale, shift, spread = norm
    x = node.args[0]
    assert isinstance(x, fx.Node)
    full = (-1,) + (1,) * (ctx.rank(x) - 2)
    y = sole_result(node)
    assert y is not None
    return [Affine(label, x, y, scale.reshape(full), shift.reshape(full), batch_norm=True, spread=spread.reshape(full))]


def batch_norm(node: fx.Node, ctx: Context) -> tuple[Array, Array, Array] | Reason:
    """Scale, shift and the input's standard deviation, float64[C] each; or why the operator is no constant affine."""
    named = arguments(node)
    x, mean, var = named["input"], named.get("running_mean"), named.get("running_var")
    if mean is None or var is None:
        return Reason.NO_STATS
    if named.get("training", "no_training" not in opname(node) and "no_update" not in opname(node)):
        return Reason.TRAINING
    if not ctx.feature(x):
        return Reason.IO
    parameters = [named.get("weight"), named.get("bias"), mean, var]
    if any(p is not None and not ctx.is_const(p) for p in parameters):
        return Reason.NOT_CONSTANT
    y = sole_result(node)
    if y is None or node.name in ctx.held:
        return Reason.BOUNDARY
    if _dtype(x) not in FLOATS or _dtype(y) != _dtype(x) or 0 in ctx.shape(x):
        return Reason.DTYPE
    gamma, beta, average, variance = (ctx.const(p) for p in parameters)
    assert average is not None
    assert variance is not None
    size, eps = average.size, float(named.get("eps", named.get("epsilon", 1e-5)))
    affine = batch_norm_affine(
        wide(gamma, size, 1.0),
        wide(beta, size, 0.0),
        average,
        variance,
        eps,
        FLOATS[_dtype(x)],
    )
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(wide(variance, size, 1.0) + eps)
    if not np.isfinite([affine.scale, affine.shift, wide(average, size, 0.0), wide(variance, size, 1.0)]).all():
        return Reason.OVERFLOW
    return affine.scale, affine.shift, spread


SPELLINGS = {"multiply": "mul", "rsub": "sub", "subtract": "sub", "true_divide": "div"}


def read_binary(node: fx.Node, ctx: Context) -> list[Op]:
    """add, sub, rsub, mul, div: an affine with a constant, else a sum or a gate."""
    named = arguments(node)
    left, right, alpha = named["self"], named["other"], float(named.get("alpha", 1))
    kind = SPELLINGS.get(opname(node), opname(node))
    if opname(node) == "rsub":
        left, right = right, left
    if named.get("rounding_mode") is not None:
        return ctx.rigid(node, Reason.NONLINEAR)
    if any(isinstance(v, fx.Node) and fake(v) is None for v in (left, right)):
        return ctx.rigid(node, Reason.NOT_CONSTANT)  # a size that is known only at run time
    if any(ctx.feature(v) and _dtype(v) != _dtype(node) for v in (left, right)):
        return ctx.rigid(node, Reason.DTYPE)
    if ctx.feature(left) and ctx.feature(right):
        if kind in ("add", "sub"):
            return [Add(ctx.label(node), left, right, node, alpha if kind == "add" else -alpha)]
        return [Gate(ctx.label(node), left, right, node, division=kind == "div")]
    is_left = ctx.feature(right)
    x, constant = (right, left) if is_left else (left, right)
    array = ctx.const(constant) if isinstance(constant, fx.Node) else np.array(float(constant))
    assert array is not None
    return _constant_binary(node, ctx, x, array, kind, is_left, alpha)


def _constant_binary(
    node: fx.Node, ctx: Context, x: fx.Node, array: Any, kind: str, is_left: bool, alpha: float
) -> list[Op]:
    c = squeeze_constant(array)
    one, zero = np.ones((1,) * c.ndim), np.zeros((1,) * c.ndim)
    division = kind == "div"
    if division and (is_left or not c.all()):
        return ctx.rigid(node, Reason.NONLINEAR)
    if division:
        with np.errstate(over="ignore"):
            scale, shift = 1.0 / c, zero
    elif kind == "mul":
        scale, shift = c, zero
    else:  # self + alpha·other, self − alpha·other
        sign = 1.0 if kind == "add" else -1.0
        scale, shift = (one * sign * alpha, c) if is_left else (one, sign * alpha * c)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()) and c.size <= max(c.shape, default=1):
        return ctx.rigid(node, Reason.OVERFLOW)
    held = node.name in ctx.held
    if held and np.all(shift == 0) and c.size == 1:
        return [_multiple(node, ctx, x, float(scale.reshape(-1)[0]))]
    if held:
        return ctx.rigid(node, Reason.NONLINEAR)
    if _grows(ctx.shape(x), array.shape):  # what only makes a tensor larger must stay
        if kind == "mul" or division or abs(scale.flat[0]) != 1:
            return ctx.rigid(node, Reason.NONLINEAR)
        return [Offset(ctx.label(node), x, node, float(scale.flat[0]), shift)]
    return [Affine(ctx.label(node), x, node, scale, shift, kind=kind.capitalize())]


def _multiple(node: fx.Node, ctx: Context, x: fx.Node, factor: float) -> Op:
    """A multiplication that stays as it is lets every unit pass: `factor·x = x + (factor − 1)·x`."""
    return Add(ctx.label(node), x, x, node, factor - 1.0)


def _grows(shape: Shape, constant: tuple[int, ...]) -> bool:
    """Whether a constant operand makes the result larger than the feature, or may."""
    if len(constant) > len(shape):
        return True
    own = shape[len(shape) - len(constant) :]
    return any(theirs not in (1, mine) for mine, theirs in zip(own, constant, strict=True))


def read_neg(node: fx.Node, ctx: Context) -> list[Op]:
    """`-x` is an affine."""
    if node.name in ctx.held:
        return [_multiple(node, ctx, _x(node), -1.0)]
    return [Affine(ctx.label(node), _x(node), node, np.array(-1.0), np.array(0.0), kind="Neg")]


def read_relu(node: fx.Node, ctx: Context) -> list[Op]:
    """Relu."""
    return [Homogeneous(ctx.label(node), _x(node), node, clips=True)]


def read_homogeneous(node: fx.Node, ctx: Context) -> list[Op]:
    """leaky_relu, abs."""
    return [Homogeneous(ctx.label(node), _x(node), node)]


def read_prelu(node: fx.Node, ctx: Context) -> list[Op]:
    """prelu, whose slope may even be computed, as long as it keeps its unit."""
    slope = arguments(node)["weight"]
    ops: list[Op] = [Homogeneous(ctx.label(node), _x(node), node)]
    if ctx.feature(slope):
        ops.insert(0, Rigid(f"{ctx.label(node)}#slope", (slope,), (), Reason.NONLINEAR))
    return ops


def read_clamp(node: fx.Node, ctx: Context) -> list[Op]:
    """Bounded to [0, ∞) it is relu; any other bound is rigid."""
    named = arguments(node)
    low, high = named.get("min", named.get("min_val")), named.get("max", named.get("max_val"))
    open_above = high is None or (isinstance(high, int | float) and high >= np.finfo(np.float32).max)
    if open_above and isinstance(low, int | float) and low == 0:
        return read_relu(node, ctx)
    return ctx.rigid(node, Reason.NONLINEAR)


def read_threshold(node: fx.Node, ctx: Context) -> list[Op]:
    """Threshold at 0 to 0 is relu."""
    named = arguments(node)
    return read_relu(node, ctx) if named["threshold"] == 0 == named["value"] else ctx.rigid(node, Reason.NONLINEAR)


def read_extremum(node: fx.Node, ctx: Context) -> list[Op]:
    """maximum, minimum, and max or min of two."""
    values = (node.args[0], node.args[1])
    if not all(ctx.feature(v) for v in values) or any(_dtype(v) != _dtype(node) for v in values):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    return [Select(ctx.label(node), values, node)]  # type: ignore[arg-type]


def read_max_or_min(node: fx.Node, ctx: Context) -> list[Op]:
    """Max and min: of two tensors, along an axis, or of everything."""
    if overload(node) == "other":
        return read_extremum(node, ctx)
    return _reduced(node, ctx, unit_sum=True, positive=True)


def read_where(node: fx.Node, ctx: Context) -> list[Op]:
    """where: either operand is passed on, whatever the sign of the scale."""
    named = arguments(node)
    values = (named.get("self"), named.get("other"))
    if not all(ctx.feature(v) for v in values) or any(_dtype(v) != _dtype(node) for v in values):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    held: list[Op] = []
    if ctx.feature(named["condition"]):
        held.append(Rigid(f"{ctx.label(node)}#condition", (named["condition"],), (), Reason.NONLINEAR))
    return [*held, Select(ctx.label(node), values, node, positive=False)]


def read_max_pool(node: fx.Node, ctx: Context) -> list[Op]:
    """Maxima over windows; where they lie does not depend on a positive unit, but is handed out as it is."""
    return _pooled(node, ctx, unit_sum=True, positive=True)


def read_average_pool(node: fx.Node, ctx: Context) -> list[Op]:
    """Averages over windows: a shift passes unless padded zeros are counted, or something else divides."""
    named = arguments(node)
    padding = named.get("padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    counted = (named.get("count_include_pad", True) and padded) or named.get("divisor_override") is not None
    ops = _pooled(node, ctx, unit_sum=not counted, positive=False)
    plain = named.get("divisor_override") is None and (named.get("count_include_pad") or not padded)
    if "kernel_size" not in named or named.get("ceil_mode") or not plain or not isinstance(ops[0], Spatial):
        return ops
    return [replace(ops[0], window=pooling_window(node, ctx))]


def _pooled(node: fx.Node, ctx: Context, unit_sum: bool, positive: bool) -> list[Op]:
    y = sole_result(node)
    if y is None:
        return ctx.rigid(node, Reason.NONLINEAR)
    name = opname(node)
    n = next(d for d in (1, 2, 3) if f"{d}d" in name)
    axes = tuple(range(ctx.rank(_x(node)) - n, ctx.rank(_x(node))))
    return [Spatial(ctx.label(node), _x(node), y, axes=axes, unit_sum=unit_sum, positive=positive)]


def read_mean(node: fx.Node, ctx: Context) -> list[Op]:
    """Averages over axes."""
    return _reduced(node, ctx, unit_sum=True, positive=False)


def read_sum(node: fx.Node, ctx: Context) -> list[Op]:
    """Sums over axes."""
    return _reduced(node, ctx, unit_sum=False, positive=False)


def read_amax(node: fx.Node, ctx: Context) -> list[Op]:
    """Maxima and minima over axes."""
    return _reduced(node, ctx, unit_sum=True, positive=True)


def _reduced(node: fx.Node, ctx: Context, unit_sum: bool, positive: bool) -> list[Op]:
    y = sole_result(node)
    if y is None or _dtype(y) != _dtype(_x(node)):
        return ctx.rigid(node, Reason.NONLINEAR)
    named, rank = arguments(node), ctx.rank(_x(node))
    dims = named.get("dim")
    axes = [dims] if isinstance(dims, int) else list(dims or range(rank))
    along = {int(axis) % rank for axis in axes}
    keeps = bool(named.get("keepdim", False))
    source = tuple(None if i in along else i for i in range(rank) if keeps or i not in along)
    ordered = tuple(sorted(along))
    return [
        Spatial(ctx.label(node), _x(node), y, axes=ordered, shape_axes=source, unit_sum=unit_sum, positive=positive)
    ]


def read_upsample(node: fx.Node, ctx: Context) -> list[Op]:
    """Interpolation, whose weights sum to 1."""
    return [Spatial(ctx.label(node), _x(node), node)]


def read_cumsum(node: fx.Node, ctx: Context) -> list[Op]:
    """A running sum along one axis."""
    axis = int(arguments(node)["dim"]) % max(ctx.rank(_x(node)), 1)
    return [Spatial(ctx.label(node), _x(node), node, axes=(axis,), unit_sum=False)]


def read_grid_sample(node: fx.Node, ctx: Context) -> list[Op]:
    """Interpolation at computed places, which keep their unit; outside it reads zeros unless told otherwise."""
    named = arguments(node)
    x, grid = named["input"], named["grid"]
    if not ctx.feature(x):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    held: list[Op] = [Rigid(f"{ctx.label(node)}#grid", (grid,), (), Reason.NONLINEAR)] if ctx.feature(grid) else []
    return [*held, Spatial(ctx.label(node), x, node, unit_sum=named["padding_mode"] != 0)]


def read_dropout(node: fx.Node, ctx: Context) -> list[Op]:
    """Dropout at inference is nothing."""
    if arguments(node)["train"] or fake(node) is None:
        return ctx.rigid(node, Reason.TRAINING)
    return read_identity(node, ctx)


def read_cast(node: fx.Node, ctx: Context) -> list[Op]:
    """A cast to the type and device it has already is nothing; any other is rigid, since it rounds."""
    before, after = fake(_x(node)), fake(node)
    assert before is not None
    assert after is not None
    same = before.dtype == after.dtype and before.device == after.device
    return read_identity(node, ctx) if same else ctx.rigid(node, Reason.DTYPE)


def read_attention(node: fx.Node, ctx: Context) -> list[Op]:
    """softmax(q·kᵀ)·v mixes the positions of `v` with weights that sum to 1, but for rows that a mask leaves empty."""
    named = arguments(node)
    q, k, v = named["query"], named["key"], named["value"]
    if named["dropout_p"] or named.get("enable_gqa") or not ctx.feature(v) or v in (q, k):
        return ctx.rigid(node, Reason.NONLINEAR)
    weights = ctx.extra(node, "weights", (*ctx.shape(node)[:-1], ctx.shape(v)[-2]))
    others = tuple(n for n in node.all_input_nodes if n is not v and ctx.feature(n))
    return [
        Rigid(f"{ctx.label(node)}#weights", others, (weights,), Reason.NONLINEAR),
        Mix(ctx.label(node), weights, v, node, unit_sum=named["attn_mask"] is None),
    ]


def _dtype(node: object) -> Any:
    tensor = fake(node) if isinstance(node, fx.Node) else None
    return None if tensor is None else tensor.dtype


def _x(node: fx.Node) -> fx.Node:
    value = node.args[0]
    assert isinstance(value, fx.Node)
    return value


BY_READER: tuple[tuple[Reader, tuple[str, ...]], ...] = (
    (read_batch_norm, tuple(BATCH_NORMS)),
    (read_convolution, tuple(CONVOLUTIONS)),
    (read_linear, ("linear",)),
    (read_addmm, ("addmm",)),
    (read_matrix_product, ("bmm", "matmul", "mm")),
    (read_recurrent, RECURRENT),
    (read_norm, tuple(CHANNEL_AXIS)),
    (read_binary, ("add", "div", "mul", "multiply", "rsub", "sub", "subtract", "true_divide")),
    (read_neg, ("neg",)),
    (read_relu, ("relu",)),
    (read_homogeneous, ("abs", "leaky_relu")),
    (read_prelu, ("_prelu_kernel", "prelu")),
    (read_clamp, ("clamp", "clamp_min", "hardtanh")),
    (read_threshold, ("threshold",)),
    (read_extremum, ("maximum", "minimum")),
    (read_max_or_min, ("max", "min")),
    (read_where, ("where",)),
    (
        read_max_pool,
        (
            *(f"{name}{d}d{tail}" for name in ("max_pool",) for d in (1, 2, 3) for tail in ("", "_with_indices")),
            *(f"adaptive_max_pool{d}d" for d in (1, 2, 3)),
        ),
    ),
    (
        read_average_pool,
        (
            *(f"avg_pool{d}d" for d in (1, 2, 3)),
            *(f"adaptive_avg_pool{d}d" for d in (1, 2, 3)),
            *(f"_adaptive_avg_pool{d}d" for d in (2, 3)),
        ),
    ),
    (read_mean, ("mean",)),
    (read_sum, ("sum",)),
    (read_amax, ("amax", "amin")),
    (
        read_upsample,
        (
            "_upsample_bicubic2d_aa",
            "_upsample_bilinear2d_aa",
            "_upsample_nearest_exact1d",
            "_upsample_nearest_exact2d",
            "_upsample_nearest_exact3d",
            "upsample_bicubic2d",
            "upsample_bilinear2d",
            "upsample_linear1d",
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_nearest3d",
            "upsample_trilinear3d",
        ),
    ),
    (read_cumsum, ("cumsum",)),
    (read_grid_sample, ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")),
    (read_dropout, ("alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout", "native_dropout")),
    (read_cast, ("_to_copy", "to", "type_as")),
    (read_attention, ("scaled_dot_product_attention",)),
    (
        read_identity,
        (
            "_reshape_alias",
            "_unsafe_view",
            "alias",
            "clone",
            "contiguous",
            "detach",
            "flatten",
            "lift_fresh_copy",
            "ravel",
            "reshape",
            "reshape_as",
            "squeeze",
            "unflatten",
            "unsqueeze",
            "view",
            "view_as",
        ),
    ),
    (read_permute, ("adjoint", "mT", "numpy_T", "permute", "swapaxes", "swapdims", "t", "transpose")),
    (read_expand, ("broadcast_to", "expand", "expand_as")),
    (read_repeat, ("repeat", "tile")),
    (read_repeat_interleave, ("repeat_interleave",)),
    (read_cat, ("cat", "concat", "concatenate")),
    (read_stack, ("stack",)),
    (read_split, ("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")),
    (read_unbind, ("unbind",)),
    (read_slice, ("narrow", "slice")),
    (read_select, ("select",)),
    (read_index_select, ("index_select",)),
    (read_index, ("index",)),
    (read_flip, ("flip",)),
    (read_roll, ("roll",)),
    (
        read_pad,
        (
            "constant_pad_nd",
            "pad",
            *(f"{mode}_pad{d}d" for mode in ("reflection", "replication") for d in (1, 2, 3)),
        ),
    ),
    (read_pixel_shuffle, ("pixel_shuffle",)),
    (read_pixel_unshuffle, ("pixel_unshuffle",)),
    (read_channel_shuffle, ("channel_shuffle", "native_channel_shuffle")),
    (read_embedding, ("embedding",)),
    (
        read_nothing,
        ("_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "sym_size", "sym_numel"),
    ),
)
READERS: dict[str, Reader] = {name: reader for reader, names in BY_READER for name in names}
