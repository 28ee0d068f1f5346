"""ONNX operators as kinds of the solver's graph: one reader per operator, one line per operator in the table.

A reader returns what the operator means. Anything it cannot vouch for it returns as `Rigid`, which is always right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bnfold.frontends.context import Context, attr, ints, not_at_inference, only_output, squeeze_constant
from bnfold.frontends.gather import read_gather, read_gather_nd
from bnfold.frontends.linear import (
    is_certain,
    read_conv,
    read_conv_transpose,
    read_gemm,
    read_matmul,
    read_recurrent,
    window_of,
)
from bnfold.frontends.structure import (
    read_concat,
    read_depth_to_space,
    read_expand,
    read_identity,
    read_pad,
    read_reshape,
    read_shape,
    read_slice,
    read_space_to_depth,
    read_split,
    read_tile,
    read_transpose,
)
from bnfold.reasons import Reason
from bnfold.units.graph import Add, Affine, Gate, Homogeneous, Mix, Offset, Op, Rigid, Select, Shape, Spatial, Value

Reader = Callable[[ir.Node, Context], list[Op]]


def read_batch_norm(node: ir.Node, ctx: Context) -> list[Op]:
    """BatchNormalization of every opset, at inference."""
    if node in ctx.excluded:
        ctx.kept[ctx.label(node)] = Reason.EXCLUDED
        return ctx.rigid(node, Reason.NONLINEAR)  # what it is to those around it, whose units it takes as they are
    reason = not_at_inference(node)
    if reason is None and (ctx.rank(node.inputs[0]) or 0) < 2:  # type: ignore[arg-type]
        reason = Reason.BOUNDARY
    norm = ctx.norms.get(node)
    if reason is None and norm is None:
        whole = len(node.inputs) >= 5 and all(ctx.is_const(v) for v in node.inputs[1:5])
        reason = Reason.BOUNDARY if whole else Reason.NOT_CONSTANT  # parameters of several sizes: a broken model
    if reason is None and norm is not None and not norm.finite:
        reason = Reason.OVERFLOW
    if reason is not None or norm is None:
        ctx.kept[ctx.label(node)] = reason or Reason.NOT_CONSTANT
        return ctx.rigid(node, reason or Reason.NOT_CONSTANT)
    full = (-1,) + (1,) * (len(ctx.shape(node.outputs[0]) or ()) - 2)
    scale, shift, spread = (array.reshape(full) for array in (norm.scale, norm.shift, norm.spread))
    label, x, y = ctx.label(node), node.inputs[0], node.outputs[0]
    return [Affine(label, x, y, scale, shift, batch_norm=True, spread=spread)]


def read_binary(node: ir.Node, ctx: Context) -> list[Op]:
    """Mul, Add, Sub, Div: an affine with a constant, else a sum or a gate."""
    left, right = node.inputs
    assert left is not None
    assert right is not None
    name, y, kind = ctx.label(node), node.outputs[0], node.op_type
    if ctx.is_const(left) and ctx.is_const(right):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    if ctx.is_const(right) or ctx.is_const(left):
        x, constant = (left, right) if ctx.is_const(right) else (right, left)
        return _constant_binary(node, ctx, x, constant, constant is left)
    if kind in ("Add", "Sub"):
        return [Add(name, left, right, y, 1.0 if kind == "Add" else -1.0)]
    return [Gate(name, left, right, y, division=kind == "Div")]


def _constant_binary(node: ir.Node, ctx: Context, x: ir.Value, constant: ir.Value, is_left: bool) -> list[Op]:
    array = ctx.const(constant)
    assert array is not None
    if (node.version or 7) < 7:  # broadcasting along an axis of its own
        return ctx.rigid(node, Reason.BOUNDARY)
    c = squeeze_constant(array)
    one, zero = np.ones((1,) * c.ndim), np.zeros((1,) * c.ndim)
    kind = node.op_type
    if kind == "Div" and (is_left or not c.all()):
        return ctx.rigid(node, Reason.NONLINEAR)
    with np.errstate(over="ignore"):
        scale, shift = {
            "Mul": (c, zero),
            "Div": (1.0 / np.where(c == 0, 1.0, c), zero),
            "Add": (one, c),
            "Sub": (-one, c) if is_left else (one, -c),
        }[kind]
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()) and c.size <= max(c.shape, default=1):
        return ctx.rigid(node, Reason.OVERFLOW)
    if _grows(ctx.shape(x) or (), array.shape):  # what only makes a tensor larger must stay
        if kind in ("Mul", "Div"):
            return ctx.rigid(node, Reason.NONLINEAR)
        return [Offset(ctx.label(node), x, node.outputs[0], float(scale.flat[0]), shift)]
    return [Affine(ctx.label(node), x, node.outputs[0], scale, shift, kind=kind)]


def _grows(shape: Shape, constant: tuple[int, ...]) -> bool:
    """Whether a constant operand makes the result larger than the feature, or may."""
    if len(constant) > len(shape):
        return True
    own = shape[len(shape) - len(constant) :]
    return any(theirs not in (1, mine) for mine, theirs in zip(own, constant, strict=True))


def read_neg(node: ir.Node, ctx: Context) -> list[Op]:
    """`-x` is an affine."""
    return [Affine(ctx.label(node), _x(node), node.outputs[0], np.array(-1.0), np.array(0.0), kind="Neg")]


def read_sum(node: ir.Node, ctx: Context) -> list[Op]:
    """Sum of any number of operands: one Add after the other."""
    values = [v for v in node.inputs if v is not None]
    if any(ctx.is_const(v) for v in values):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    shape = ctx.shape(node.outputs[0]) or ()
    ops: list[Op] = []
    total: Value = values[0]
    if len(values) == 1:
        return read_identity(node, ctx)
    for i, value in enumerate(values[1:]):
        last = i == len(values) - 2
        result = node.outputs[0] if last else ctx.extra(node, f"sum{i}", shape)
        ops.append(Add(f"{ctx.label(node)}#{i}", total, value, result))
        total = result
    return ops


def read_relu(node: ir.Node, ctx: Context) -> list[Op]:
    """ReLU."""
    return [Homogeneous(ctx.label(node), _x(node), node.outputs[0], clips=True)]


def read_homogeneous(node: ir.Node, ctx: Context) -> list[Op]:
    """LeakyRelu, Abs."""
    return [Homogeneous(ctx.label(node), _x(node), node.outputs[0])]


def read_prelu(node: ir.Node, ctx: Context) -> list[Op]:
    """PReLU, whose slope may even be computed, as long as it keeps its unit."""
    slope = node.inputs[1]
    ops: list[Op] = [Homogeneous(ctx.label(node), _x(node), node.outputs[0])]
    if slope is not None and not ctx.is_const(slope):
        ops.insert(0, Rigid(f"{ctx.label(node)}#slope", (slope,), (), Reason.NONLINEAR))
    return ops


def read_clip(node: ir.Node, ctx: Context) -> list[Op]:
    """Clip to [0, ∞) is ReLU, without bounds it is nothing; any other bound is rigid."""
    if len(node.inputs) > 1 or (node.version or 11) >= 11:
        bounds = [*node.inputs[1:3], None, None][:2]
        if any(b is not None and not ctx.is_const(b) for b in bounds):
            return ctx.rigid(node, Reason.NONLINEAR)
        low, high = (None if b is None else float(np.asarray(ctx.const(b)).reshape(-1)[0]) for b in bounds)
    else:
        low, high = attr(node, "min", None), attr(node, "max", None)
    largest = float(np.finfo(np.float32).max)
    open_above = high is None or high >= largest
    if open_above and low == 0:
        return read_relu(node, ctx)
    if open_above and (low is None or low <= -largest):
        return read_identity(node, ctx)
    return ctx.rigid(node, Reason.NONLINEAR)


def read_extremum(node: ir.Node, ctx: Context) -> list[Op]:
    """Max and Min of features and constants."""
    values = [v for v in node.inputs if v is not None]
    xs = tuple(v for v in values if not ctx.is_const(v))
    constants = tuple(array for v in values if (array := ctx.const(v)) is not None)
    if not xs:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    return [Select(ctx.label(node), xs, node.outputs[0], constants)]


def read_where(node: ir.Node, ctx: Context) -> list[Op]:
    """Where: either operand is passed on, whatever the sign of the scale."""
    condition, *branches = (v for v in node.inputs if v is not None)
    xs = tuple(v for v in branches if not ctx.is_const(v))
    constants = tuple(array for v in branches if (array := ctx.const(v)) is not None)
    if not xs:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    held = Rigid(f"{ctx.label(node)}#condition", (condition,), (), Reason.NONLINEAR)
    return [held, Select(ctx.label(node), xs, node.outputs[0], constants, positive=False)]


def read_max_pool(node: ir.Node, ctx: Context) -> list[Op]:
    """MaxPool; the positions of the maxima do not depend on a positive unit."""
    return [Spatial(ctx.label(node), _x(node), node.outputs[0], positive=True)]


def read_average_pool(node: ir.Node, ctx: Context) -> list[Op]:
    """AveragePool: a shift passes unless padded zeros are counted."""
    pads = any(ints(node, "pads", ())) or attr(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    ceils, counts = bool(attr(node, "ceil_mode", 0)), bool(attr(node, "count_include_pad", 0))
    counted = counts and (pads or ceils)
    window = None
    if not ceils and (counts or not pads) and is_certain(node, ctx):
        window = window_of(node, ctx.shape(_x(node)) or (), ints(node, "kernel_shape", ()), transposed=False)
    return [Spatial(ctx.label(node), _x(node), node.outputs[0], unit_sum=not counted, window=window)]


def read_global_average(node: ir.Node, ctx: Context) -> list[Op]:
    """GlobalAveragePool."""
    return [Spatial(ctx.label(node), _x(node), node.outputs[0])]


def read_global_max(node: ir.Node, ctx: Context) -> list[Op]:
    """GlobalMaxPool."""
    return [Spatial(ctx.label(node), _x(node), node.outputs[0], positive=True)]


def read_reduce(node: ir.Node, ctx: Context) -> list[Op]:
    """ReduceMean, ReduceMax, ReduceMin, ReduceSum along given axes."""
    rank = ctx.rank(_x(node))
    assert rank is not None
    axes: tuple[int, ...] | None = ints(node, "axes", ()) if "axes" in node.attributes else None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = ctx.const(node.inputs[1])
        if array is None:
            return ctx.rigid(node, Reason.NOT_CONSTANT)
        axes = tuple(int(a) for a in array.reshape(-1))
    if not axes:
        if attr(node, "noop_with_empty_axes", 0):
            return read_identity(node, ctx)
        axes = tuple(range(rank))
    along = {a % rank for a in axes}
    keeps = bool(attr(node, "keepdims", 1))
    source = tuple(None if i in along else i for i in range(rank) if keeps or i not in along)
    name = node.op_type
    return [
        Spatial(
            ctx.label(node),
            _x(node),
            node.outputs[0],
            axes=tuple(sorted(along)),
            shape_axes=source,
            unit_sum=name != "ReduceSum",
            positive=name in ("ReduceMax", "ReduceMin"),
        )
    ]


def read_resize(node: ir.Node, ctx: Context) -> list[Op]:
    """Resize and Upsample: interpolation whose weights sum to 1, unless it extrapolates."""
    before, after = ctx.shape(_x(node)), ctx.shape(node.outputs[0])
    assert before is not None
    assert after is not None
    axes = tuple(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    constant = _resized_axes(node, ctx, axes, len(before))
    if constant is not None:
        axes = constant
    elif any(not ctx.is_const(v) for v in node.inputs[1:] if v is not None) and len(axes) == len(before):
        axes = tuple(range(2, len(before)))  # sizes computed at run time: frameworks scale space, not channels
        if not isinstance(before[1], int) or before[1] != after[1]:
            return ctx.rigid(node, Reason.NOT_CONSTANT)
    extrapolates = attr(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if extrapolates and attr(node, "extrapolation_value", 0.0) != 0:
        return ctx.rigid(node, Reason.NONLINEAR)
    return [Spatial(ctx.label(node), _x(node), node.outputs[0], axes=axes, unit_sum=not extrapolates)]


def _resized_axes(node: ir.Node, ctx: Context, larger: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """The axes a Resize works along, if its constants say it: a scale of 1.1 may leave a small size as it is."""
    named = tuple(axis % rank for axis in ints(node, "axes", tuple(range(rank))))
    if attr(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return named
    cropped: set[int] = set()
    if attr(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        roi = ctx.const(node.inputs[1])
        if roi is None or roi.size != 2 * len(named):
            return named
        cropped = {axis for axis, begin, end in zip(named, *roi.reshape(2, -1), strict=True) if (begin, end) != (0, 1)}
    at = 1 if node.op_type == "Upsample" or (node.version or 11) < 11 else 2
    scales = ctx.const(node.inputs[at]) if len(node.inputs) > at else np.array(attr(node, "scales", ()))
    if scales is not None and scales.size == len(named):
        return tuple(
            sorted(cropped | {axis for axis, scale in zip(named, scales.reshape(-1), strict=True) if scale != 1})
        )
    return tuple(sorted(cropped | set(larger))) if cropped else None


def read_cumsum(node: ir.Node, ctx: Context) -> list[Op]:
    """A running sum along one axis."""
    axis = ctx.const(node.inputs[1])
    rank = ctx.rank(_x(node))
    if axis is None or rank is None:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    return [
        Spatial(ctx.label(node), _x(node), node.outputs[0], axes=(int(axis.reshape(-1)[0]) % rank,), unit_sum=False)
    ]


def read_grid_sample(node: ir.Node, ctx: Context) -> list[Op]:
    """Interpolation at computed places, which keep their unit; outside it reads zeros unless told otherwise."""
    held = Rigid(f"{ctx.label(node)}#grid", tuple(_features(node.inputs[1:], ctx)), (), Reason.NONLINEAR)
    inside = attr(node, "padding_mode", "zeros") != "zeros"
    return [held, Spatial(ctx.label(node), _x(node), node.outputs[0], unit_sum=inside)]


def read_roi_pool(node: ir.Node, ctx: Context) -> list[Op]:
    """RoiAlign and MaxRoiPool: no shift passes, since places outside the image count as zeros."""
    held = Rigid(f"{ctx.label(node)}#rois", tuple(_features(node.inputs[1:], ctx)), (), Reason.NONLINEAR)
    maximum = node.op_type == "MaxRoiPool" or attr(node, "mode", "avg") == "max"
    axes = (0, 2, 3)
    return [held, Spatial(ctx.label(node), _x(node), node.outputs[0], axes=axes, unit_sum=False, positive=maximum)]


def read_dropout(node: ir.Node, ctx: Context) -> list[Op]:
    """Dropout at inference is nothing."""
    version = node.version or 13
    training = ctx.const(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.array(False)
    if version < 7 and not attr(node, "is_test", 0):
        return ctx.rigid(node, Reason.TRAINING)
    if training is None or bool(np.asarray(training).any()) or not only_output(node):
        return ctx.rigid(node, Reason.TRAINING)
    return read_identity(node, ctx)


def read_cast(node: ir.Node, ctx: Context) -> list[Op]:
    """A cast to the type it has already is nothing; any other is rigid, since it rounds."""
    if _x(node).dtype is not None and _x(node).dtype == node.outputs[0].dtype:
        return read_identity(node, ctx)
    return ctx.rigid(node, Reason.DTYPE)


def read_matrix_product(node: ir.Node, ctx: Context) -> list[Op]:
    """MatMul: a linear operator with a constant, a mixing of positions without."""
    left, right = node.inputs
    assert left is not None
    assert right is not None
    if ctx.is_const(left) or ctx.is_const(right):
        return read_matmul(node, ctx)
    return [Mix(ctx.label(node), left, right, node.outputs[0], unit_sum=_is_softmax(left, ctx))]


def _is_softmax(value: ir.Value, ctx: Context) -> bool:
    """Whether rows (the last axis) sum to 1: a softmax over it, seen through Identity and eval Dropout."""
    producer = value.producer()
    while producer is not None and producer.op_type in ("Identity", "Dropout"):
        if producer.op_type == "Dropout" and isinstance(read_dropout(producer, ctx)[0], Rigid):
            return False
        producer = _x(producer).producer()
    if producer is None or producer.op_type != "Softmax":
        return False
    rank = ctx.rank(value)
    axis = attr(producer, "axis", -1 if (producer.version or 13) >= 13 else 1)
    return rank is not None and int(axis) % rank == rank - 1


def _features(values: object, ctx: Context) -> list[ir.Value]:
    return [v for v in values if v is not None and not ctx.is_const(v)]  # type: ignore[attr-defined]


def _x(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


READERS: dict[str, Reader] = {
    "Abs": read_homogeneous,
    "Add": read_binary,
    "AveragePool": read_average_pool,
    "BatchNormalization": read_batch_norm,
    "Cast": read_cast,
    "CastLike": read_cast,
    "Clip": read_clip,
    "Concat": read_concat,
    "Conv": read_conv,
    "ConvTranspose": read_conv_transpose,
    "CumSum": read_cumsum,
    "DepthToSpace": read_depth_to_space,
    "Div": read_binary,
    "Dropout": read_dropout,
    "Expand": read_expand,
    "Flatten": read_reshape,
    "GRU": read_recurrent,
    "Gather": read_gather,
    "GatherND": read_gather_nd,
    "Gemm": read_gemm,
    "GlobalAveragePool": read_global_average,
    "GlobalMaxPool": read_global_max,
    "GridSample": read_grid_sample,
    "Identity": read_identity,
    "LSTM": read_recurrent,
    "LeakyRelu": read_homogeneous,
    "MatMul": read_matrix_product,
    "Max": read_extremum,
    "MaxPool": read_max_pool,
    "MaxRoiPool": read_roi_pool,
    "Min": read_extremum,
    "Mul": read_binary,
    "Neg": read_neg,
    "PRelu": read_prelu,
    "Pad": read_pad,
    "RNN": read_recurrent,
    "ReduceMax": read_reduce,
    "ReduceMean": read_reduce,
    "ReduceMin": read_reduce,
    "ReduceSum": read_reduce,
    "Relu": read_relu,
    "Reshape": read_reshape,
    "Resize": read_resize,
    "RoiAlign": read_roi_pool,
    "Shape": read_shape,
    "Size": read_shape,
    "Slice": read_slice,
    "SpaceToDepth": read_space_to_depth,
    "Split": read_split,
    "Squeeze": read_reshape,
    "Sub": read_binary,
    "Sum": read_sum,
    "Tile": read_tile,
    "Transpose": read_transpose,
    "Unsqueeze": read_reshape,
    "Upsample": read_resize,
    "Where": read_where,
}
