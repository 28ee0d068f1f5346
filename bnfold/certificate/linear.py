"""What operators with constant weights mean, as forms: convolutions, matrix products, padding, averages.

The definitions are those of the ONNX specification, the same for both models. Nothing is shared with the code that
folds.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.certificate.applied import applied, wider
from bnfold.certificate.bounds import Array, Bound
from bnfold.certificate.forms import Form, Mismatch, spread, vector
from bnfold.certificate.sides import Of, Side, Size, rank_of, sizes_of
from bnfold.certificate.taps import Slide, Taps
from bnfold.frontends.context import attr, ints


def convolution(side: Side, node: ir.Node, of: Of) -> Form | None:
    """Conv and ConvTranspose."""
    x, weight = node.inputs[0], side.bound(node.inputs[1])
    stored = node.inputs[2] if len(node.inputs) > 2 else None
    bias = Bound.filled(0.0, 1) if stored is None else side.bound(stored)
    if x is None or not side.is_feature(x) or weight is None or bias is None:
        return None
    rank, groups = rank_of(x), int(attr(node, "group", 1))
    mid, err = (_grouped(a, groups, node.op_type == "ConvTranspose") for a in _both(weight))
    taps = Taps(mid, err, _slide(node, sizes_of(x), weight.mid.shape[2:]), 1, rank)
    return applied(side, of(x), taps, spread(bias, 1, rank))


def _both(bound: Bound) -> tuple[Array, Array]:
    return bound.mid, np.broadcast_to(bound.err, bound.mid.shape) if bound.err.any() else bound.err


def _grouped(array: Array, groups: int, transposed: bool) -> Array:
    """`[out, in/groups, *k]` or (transposed) `[in, out/groups, *k]` as `[groups, out/groups, in/groups, *k]`."""
    if array.size == 1 and array.ndim > 1 and groups > 1:
        return array.reshape(1, *array.shape)
    parts = array.reshape(groups, -1, *array.shape[1:]) if array.size > 1 else array.reshape(1, *array.shape)
    return parts.swapaxes(1, 2) if transposed else parts


def _slide(node: ir.Node, sizes: tuple[Size, ...], kernel: tuple[int, ...]) -> Slide:
    n, transposed = len(kernel), node.op_type == "ConvTranspose"
    known = tuple(size if isinstance(size, int) else None for size in sizes[2:])
    strides, dilations = ints(node, "strides", (1,) * n), ints(node, "dilations", (1,) * n)
    pads, automatic = ints(node, "pads", (0,) * (2 * n)), str(attr(node, "auto_pad", "NOTSET"))
    begin, end = pads[:n], pads[n:]
    extra = ints(node, "output_padding", (0,) * n) if transposed else ()
    if "output_shape" in node.attributes:
        automatic = f"output_shape {ints(node, 'output_shape', ())}"
    elif automatic == "VALID":
        automatic, begin, end = "NOTSET", (0,) * n, (0,) * n
    elif automatic.startswith("SAME") and not transposed and all(size is not None for size in known):
        total = [
            max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)  # type: ignore[operator]
            for size, s, d, k in zip(known, strides, dilations, kernel, strict=True)
        ]
        less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        begin, end = (less, more) if automatic == "SAME_UPPER" else (more, less)
        automatic = "NOTSET"
    return Slide(strides, dilations, begin, end, known, transposed, extra, automatic)


def gemm(side: Side, node: ir.Node, of: Of) -> Form | None:
    """Gemm with a constant matrix: `alpha·A·B + beta·C`."""
    x, weight = node.inputs[0], side.bound(node.inputs[1])
    stored = node.inputs[2] if len(node.inputs) > 2 else None
    bias = Bound.filled(0.0, 2) if stored is None else side.bound(stored)
    if x is None or not side.is_feature(x) or weight is None or bias is None or attr(node, "transA", 0):
        return None
    if not attr(node, "transB", 0):
        weight = weight.moved(np.transpose)
    alpha, beta = (Bound.exact(float(attr(node, name, 1.0))) for name in ("alpha", "beta"))
    mid, err = (array[None] for array in _both(weight * alpha))
    taps = Taps(mid, err, Slide(), 1, 2)
    bias = bias.moved(lambda a: a.reshape((1,) * (2 - a.ndim) + a.shape))
    return applied(side, of(x), taps, bias * beta)


def matmul(side: Side, node: ir.Node, of: Of) -> Form | None:
    """MatMul by a constant matrix, on either side."""
    left, right = node.inputs
    assert left is not None
    assert right is not None
    if side.is_feature(left) == side.is_feature(right):
        return None
    x, weight = (left, side.bound(right)) if side.is_feature(left) else (right, side.bound(left))
    rank = rank_of(x)
    if weight is None or weight.rank != 2 or rank < 2:
        return None
    if x is left:
        weight = weight.moved(np.transpose)
    axis = rank - 1 if x is left else rank - 2
    mid, err = (array[None] for array in _both(weight))
    taps = Taps(mid, err, Slide(), axis, rank)
    return applied(side, of(x), taps, Bound.filled(0.0, rank))


def zero_pad(side: Side, node: ir.Node, of: Of) -> Form | None:
    """Zeros around a tensor, as a kernel of one tap with that padding."""
    pads = zero_pads(side, node)
    x = node.inputs[0]
    if pads is None or x is None or not side.is_feature(x):
        return None
    rank = rank_of(x)
    begin, end = pads[:rank], pads[rank:]
    form = of(x)
    channels = sizes_of(x)[1] if rank > 2 else None
    if len(form.terms) != 1 or any((*begin[:2], *end[:2])) or min(pads) < 0 or not isinstance(channels, int):
        return None
    if not form.const.holds(0.0).all():
        raise Mismatch("zeros are padded to a tensor whose zero is another one after")
    (value, scale), *_ = form.terms.items()
    if isinstance(scale, Taps):
        padded = wider(scale, tuple(begin[2:]), tuple(end[2:]))
        return None if padded is None else Form({value: padded}, Bound.filled(0.0, rank))
    flat, n = vector(scale, 1), rank - 2
    mid, err = (np.broadcast_to(a, (channels,)).reshape(channels, 1, 1, *(1,) * n) for a in (flat.mid, flat.err))
    known = tuple(size if isinstance(size, int) else None for size in sizes_of(x)[2:])
    slide = Slide((1,) * n, (1,) * n, tuple(begin[2:]), tuple(end[2:]), known)
    return Form({value: Taps(mid, err, slide, 1, rank)}, Bound.filled(0.0, rank))


def zero_pads(side: Side, node: ir.Node) -> list[int] | None:
    """The zeros that a Pad adds, before and then behind every axis; None where it adds something else."""
    x = node.inputs[0]
    if x is None or attr(node, "mode", "constant") != "constant":
        return None
    rank = rank_of(x)
    if len(node.inputs) < 2 or node.inputs[1] is None:
        fill, pads = float(attr(node, "value", 0.0)), list(ints(node, "pads", ints(node, "paddings", ())))
        return pads if fill == 0 and len(pads) == 2 * rank else None
    given = side.array(node.inputs[1])
    optional = [node.inputs[i] if len(node.inputs) > i else None for i in (2, 3)]
    fill_array, axes = (side.array(v) for v in optional)
    if given is None or any(v is not None and a is None for v, a in zip(optional, (fill_array, axes), strict=True)):
        return None
    if fill_array is not None and fill_array.reshape(-1)[0] != 0:
        return None
    named = range(rank) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    pads = [0] * (2 * rank)
    for i, axis in enumerate(named):
        pads[axis], pads[rank + axis] = int(given[i]), int(given[i + len(given) // 2])
    return pads


def average(side: Side, node: ir.Node, of: Of) -> Form | None:
    """A mean over a window as a depthwise convolution, where padded zeros are counted or there are none."""
    x = node.inputs[0]
    if x is None or node.op_type != "AveragePool" or not side.is_feature(x) or attr(node, "ceil_mode", 0):
        return None
    window, rank, sizes = ints(node, "kernel_shape", ()), rank_of(x), sizes_of(x)
    slide = _slide(node, sizes, window)
    if (any((*slide.begin, *slide.end)) or slide.automatic != "NOTSET") and not attr(node, "count_include_pad", 0):
        return None
    channels = sizes[1]
    if not isinstance(channels, int):
        return None
    mid = np.full((channels, 1, 1, *window), 1.0 / np.prod(window))
    return applied(side, of(x), Taps(mid, np.zeros((1,) * mid.ndim), slide, 1, rank), Bound.filled(0.0, rank))
