"""Operators that look through a window: convolutions and poolings of every rank, padding and rounding.

A pooling is a reduction over a view of its windows, so that dilation, rounding up and uncounted padding need no case of
their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bnfold.float64.call import Call, Elsewhere, Operator, padded


def _geometry(call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, pads and dilations, `auto_pad` resolved."""
    rank = len(kernel)
    strides = list(call.get("strides") or [1] * rank)
    dilations = list(call.get("dilations") or [1] * rank)
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return strides, list(call.get("pads") or [0] * 2 * rank), dilations
    if auto == "VALID":
        return strides, [0] * 2 * rank, dilations
    totals = [
        max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        for size, stride, dilation, k in zip(sizes, strides, dilations, kernel, strict=True)
    ]
    less = [total // 2 for total in totals]
    more = [total - half for total, half in zip(totals, less, strict=True)]
    return strides, [*less, *more] if auto == "SAME_UPPER" else [*more, *less], dilations


def conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv of rank 1 to 3."""
    rank = x.ndim - 2
    strides, pads, dilations = _geometry(call, x.shape[2:], weight.shape[2:])
    run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}.get(rank)
    if run is None:
        raise Elsewhere
    if pads[:rank] == pads[rank:]:  # the operator's own padding needs no copy
        return run(x, weight, bias, strides, pads[:rank], dilations, call.get("group", 1))
    return run(padded(x, pads, 0.0), weight, bias, strides, 0, dilations, call.get("group", 1))


def conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """ConvTranspose: everything the kernels reach, then cut (or continued with zeros) to what is asked for."""
    rank = x.ndim - 2
    run = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}.get(rank)
    if run is None:
        raise Elsewhere
    strides = list(call.get("strides") or [1] * rank)
    dilations = list(call.get("dilations") or [1] * rank)
    extra = list(call.get("output_padding") or [0] * rank)
    auto, target = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    full = run(x, weight, None, strides, 0, 0, call.get("group", 1), dilations)
    pads = list(call.get("pads") or [0] * 2 * rank)
    if target is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        target = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if target is not None:
        totals = [f + e - t for f, e, t in zip(full.shape[2:], extra, list(target)[-rank:], strict=True)]
        less = [total // 2 for total in totals]
        more = [total - half for total, half in zip(totals, less, strict=True)]
        pads = [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
    ends = [e - after for e, after in zip(extra, pads[rank:], strict=True)]
    full = padded(full, [*(-before for before in pads[:rank]), *ends], 0.0)
    return full if bias is None else full + bias.reshape(-1, *(1,) * rank)


def _windows(call: Call, x: Tensor, value: float) -> tuple[Tensor, Tensor]:
    """Views of the windows, `[batch, channels, *places, *kernel]`: of a tensor, and of ones where places count.

    Padding counts where the operator says so, and what rounding up adds behind it never does.
    """
    kernel = list(call.get("kernel_shape"))
    rank = len(kernel)
    strides, pads, dilations = _geometry(call, x.shape[2:], kernel)
    sizes, added = [], [0] * rank
    for axis, (k, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        reach = dilation * (k - 1) + 1
        room = x.shape[2 + axis] + pads[axis] + pads[axis + rank] - reach
        size = room // stride + 1
        if call.get("ceil_mode", 0):
            size = -(-room // stride) + 1
            if (size - 1) * stride >= x.shape[2 + axis] + pads[axis]:  # a window must start inside
                size -= 1
        sizes.append(size)
        added[axis] = max(0, (size - 1) * stride - room)

    def view(tensor: Tensor, fill: float) -> Tensor:
        whole = padded(padded(tensor, pads, fill), [0] * rank + added, value).contiguous()
        steps = whole.stride()
        inner = [steps[2 + axis] * dilations[axis] for axis in range(rank)]
        outer = [steps[2 + axis] * strides[axis] for axis in range(rank)]
        return whole.as_strided((*whole.shape[:2], *sizes, *kernel), (*steps[:2], *outer, *inner))

    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
    return view(x, value), view(ones, float(call.get("count_include_pad", 0)))


def _kernel_axes(rank: int) -> tuple[int, ...]:
    return tuple(range(-rank, 0))


def max_pool(call: Call, x: Tensor) -> Tensor:
    """MaxPool without its indices."""
    if call.outputs > 1 or not x.dtype.is_floating_point:
        raise Elsewhere
    return _windows(call, x, -math.inf)[0].amax(_kernel_axes(x.ndim - 2))


def average_pool(call: Call, x: Tensor) -> Tensor:
    """AveragePool: the sum over each window by the number of places in it that count."""
    values, counted = _windows(call, x, 0.0)
    axes = _kernel_axes(x.ndim - 2)
    return values.sum(axes) / counted.sum(axes)


def lp_pool(call: Call, x: Tensor) -> Tensor:
    """LpPool."""
    p = call.get("p", 2)
    return torch.pow(_windows(call, x.abs() ** p, 0.0)[0].sum(_kernel_axes(x.ndim - 2)), 1.0 / p)


def _everywhere(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


WINDOW: dict[str, Operator] = {
    "AveragePool": average_pool,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "GlobalAveragePool": lambda call, x: x.mean(_everywhere(x), keepdim=True),
    "GlobalLpPool": lambda call, x: (x.abs() ** call.get("p", 2)).sum(_everywhere(x), True) ** (1 / call.get("p", 2)),
    "GlobalMaxPool": lambda call, x: x.amax(_everywhere(x), keepdim=True),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
}
