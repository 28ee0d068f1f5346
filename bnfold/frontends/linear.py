"""ONNX operators with constant weights: where their weights, biases and channels are, and how to write them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.frontends.context import Context, attr, ints
from bnfold.reasons import Reason
from bnfold.units.affine import Array, Kernel
from bnfold.units.graph import Linear, Op, Recurrent, Rigid
from bnfold.units.window import Window, convolution_kernel


def read_conv(node: ir.Node, ctx: Context) -> list[Op]:
    """Conv in any number of dimensions, any groups."""
    return _convolution(node, ctx, transposed=False)


def read_conv_transpose(node: ir.Node, ctx: Context) -> list[Op]:
    """ConvTranspose, whose weight is `[in, out/groups, *kernel]`."""
    return _convolution(node, ctx, transposed=True)


def _convolution(node: ir.Node, ctx: Context, transposed: bool) -> list[Op]:
    x, stored = node.inputs[0], node.inputs[1]
    weight = ctx.const(stored)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or (bias is not None and not ctx.is_const(bias)):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    groups = int(attr(node, "group", 1))
    assert x is not None
    assert stored is not None
    shape = ctx.shape(x) or ()
    if len(shape) != weight.ndim or weight.ndim < 3 or not _slides(node, weight.ndim - 2):
        return ctx.rigid(node, Reason.BOUNDARY)  # the model is broken, and stays as it is
    channels = shape[1]
    if isinstance(channels, int) and channels != weight.shape[0 if transposed else 1] * (1 if transposed else groups):
        return ctx.rigid(node, Reason.BOUNDARY)
    out = weight.shape[1] * groups if transposed else weight.shape[0]
    held = ctx.const(bias) if bias is not None else None
    if held is not None and held.shape != (out,) and (held.ndim == 1 or held.any()):
        return ctx.rigid(node, Reason.BOUNDARY)
    window = window_of(node, shape, weight.shape[2:], transposed)
    if not window.slides:
        return ctx.rigid(node, Reason.BOUNDARY)
    kernel = convolution_kernel(weight, groups, window, transposed)
    return [
        Linear(
            ctx.label(node),
            x,
            node.outputs[0],
            x_axis=1,
            y_axis=1,
            kernel=kernel,
            weight=stored,
            window=window,
            has_bias=held is not None and held.shape == (out,),
            frozen=_frozen(stored, node),
        )
    ]


def _slides(node: ir.Node, n: int) -> bool:
    """Whether the attributes of a convolution in n dimensions are as many as that, and make sense."""
    strides, dilations = ints(node, "strides", (1,) * n), ints(node, "dilations", (1,) * n)
    pads = ints(node, "pads", (0,) * (2 * n))
    counts = (len(strides), len(dilations), len(pads)) == (n, n, 2 * n)
    return counts and min((*strides, *dilations, int(attr(node, "group", 1)))) > 0


def window_of(node: ir.Node, shape: tuple[int | str | None, ...], kernel: tuple[int, ...], transposed: bool) -> Window:
    """How a convolution slides. Where its padding depends on an unknown size, every padding that can occur counts."""
    n = len(kernel)
    strides, dilations = ints(node, "strides", (1,) * n), ints(node, "dilations", (1,) * n)
    pads = ints(node, "pads", (0,) * (2 * n))
    begin, end = list(pads[:n]), list(pads[n:])
    sizes = tuple(s if isinstance(s, int) else None for s in shape[2:]) or (None,) * n
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    automatic = attr(node, "auto_pad", "NOTSET")
    if automatic == "VALID":
        begin, end = [0] * n, [0] * n
    elif automatic in ("SAME_UPPER", "SAME_LOWER") and not transposed:
        for i, size in enumerate(sizes):
            if size is None:
                begin[i] = end[i] = reach[i] - 1
                continue
            total = max((-(-size // strides[i]) - 1) * strides[i] + reach[i] - size, 0)
            small, large = total // 2, total - total // 2
            begin[i], end[i] = (small, large) if automatic == "SAME_UPPER" else (large, small)
    if transposed and (automatic.startswith("SAME") or "output_shape" in node.attributes):
        begin, end = [0] * n, [0] * n  # what is cut off depends on the output size: count every position
    extra = ints(node, "output_padding", (0,) * n) if transposed else ()
    return Window(kernel, strides, dilations, tuple(begin), tuple(end), sizes, transposed, extra)


def is_certain(node: ir.Node, ctx: Context) -> bool:
    """Whether `window_of` is how a node slides at every size, not the worst that can occur."""
    x = node.inputs[0]
    shape = None if x is None else ctx.shape(x)
    automatic = attr(node, "auto_pad", "NOTSET")
    return automatic in ("NOTSET", "VALID") or (shape is not None and all(isinstance(s, int) for s in shape[2:]))


def read_gemm(node: ir.Node, ctx: Context) -> list[Op]:
    """Gemm with a constant second operand: `alpha·A·B + beta·C`."""
    x, stored = node.inputs[0], node.inputs[1]
    weight = ctx.const(stored)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert x is not None
    if weight is None or ctx.is_const(x) or (bias is not None and not ctx.is_const(bias)):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    assert stored is not None
    flipped = bool(attr(node, "transB", 0))
    kernel = Kernel(
        lambda: weight,
        weight.shape,
        out_axis=0 if flipped else 1,
        in_axis=1 if flipped else 0,
        gain=float(attr(node, "alpha", 1.0)),
    )
    return [
        Linear(
            ctx.label(node),
            x,
            node.outputs[0],
            x_axis=0 if attr(node, "transA", 0) else 1,
            y_axis=1,
            kernel=kernel,
            weight=stored,
            has_bias=bias is not None,
            frozen=_frozen(stored, node),
        )
    ]


def read_matmul(node: ir.Node, ctx: Context) -> list[Op]:
    """MatMul by a constant matrix on either side, together with the Add of a bias that follows it."""
    left, right = node.inputs
    assert left is not None
    assert right is not None
    from_left = ctx.is_const(left)
    x, stored = (right, left) if from_left else (left, right)
    weight = ctx.const(stored)
    rank = ctx.rank(x)
    if weight is None or rank is None or weight.ndim != 2 or rank < 2 or ctx.is_const(x):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    if (node.version or 7) < 7:  # a bias there would need the broadcasting of its time
        return ctx.rigid(node, Reason.BOUNDARY)
    axis = rank - 2 if from_left else rank - 1
    kernel = Kernel(lambda: weight, weight.shape, out_axis=0 if from_left else 1, in_axis=1 if from_left else 0)
    bias = bias_add(node, ctx, axis, weight.shape[kernel.out_axis])
    if bias is not None:
        ctx.skip.add(bias.node)
    return [
        Linear(
            ctx.label(node),
            x,
            node.outputs[0] if bias is None else bias.node.outputs[0],
            x_axis=axis,
            y_axis=axis,
            kernel=kernel,
            weight=stored,
            has_bias=bias is not None,
            bias_slot=bias is not None,
            frozen=_frozen(stored, node),
        )
    ]


@dataclass(frozen=True)
class BiasAdd:
    """The Add behind a MatMul that is its bias.

    Attributes:
        node: The Add.
        operand: Which of its inputs is the constant.
        array: float64[out_channels].
    """

    node: ir.Node
    operand: int
    array: Array


def bias_add(node: ir.Node, ctx: Context, axis: int, channels: int) -> BiasAdd | None:
    """The only reader of a MatMul's result, if it adds a constant per channel."""
    y = node.outputs[0]
    uses = y.uses()
    if len(uses) != 1 or y.is_graph_output():
        return None
    reader, operand = uses[0].node, 1 - uses[0].idx  # type: ignore[index]
    if reader.op_type != "Add" or reader.domain not in ("", "ai.onnx") or reader.graph is not node.graph:
        return None
    constant = ctx.const(reader.inputs[operand])
    rank = ctx.rank(y)
    if constant is None or rank is None or constant.ndim > rank:
        return None
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(size != 1 for i, size in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    flat = np.broadcast_to(constant.astype(np.float64).reshape(-1), (channels,))
    return BiasAdd(reader, operand, flat)


RECURRENT_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def read_recurrent(node: ir.Node, ctx: Context) -> list[Op]:
    """LSTM, GRU, RNN: `W` is `[directions, gates·hidden, input]`."""
    x, stored = node.inputs[0], node.inputs[1]
    weight = ctx.const(stored)
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    if weight is None or (bias is not None and not ctx.is_const(bias)) or attr(node, "activations", None) == []:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    assert x is not None
    assert stored is not None
    states = [v for v in node.inputs[2:] if v is not None and not ctx.is_const(v)]
    held: list[Op] = [Rigid(f"{ctx.label(node)}#states", tuple(states), (), Reason.NONLINEAR)] if states else []
    return [
        *held,
        Recurrent(
            ctx.label(node), x, 2, tuple(node.outputs), stored, features=weight.shape[2], frozen=_frozen(stored, node)
        ),
    ]


def _frozen(stored: ir.Value, node: ir.Node) -> Reason | None:
    """Why a weight must stay as it is: something reads it in another way, or hands it out."""
    if stored.is_graph_output():
        return Reason.IO
    uses = stored.uses()
    for use in uses if len(uses) > 1 else ():
        other = use.node
        same = (
            other.graph is node.graph
            and other.op_type == node.op_type
            and use.idx == 1 - (node.op_type == "MatMul" and node.inputs[0] is stored)
            and all(attr(other, k, d) == attr(node, k, d) for k, d in (("group", 1), ("transB", 0)))
        )
        if not same:
            return Reason.SHARED_WEIGHT
    return None


def stored_bias(node: ir.Node, ctx: Context) -> Array | None:
    """The bias of a Conv, ConvTranspose or Gemm as float64[..., out_channels]; None for none."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None
    array: NDArray[Any] | None = ctx.const(value)
    assert array is not None
    if node.op_type != "Gemm" and array.ndim != 1:  # zeros that torch's exporter makes up for a Conv3d without a bias
        return None
    factor = float(attr(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
    wide: Array = array.astype(np.float64) * factor
    return wide
