"""Operators that move, pick, repeat or type elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnfold.float64.call import Call, Elsewhere, Operator, numbers, padded

FLOATING = {"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"}
DTYPES = {
    "BOOL": torch.bool, "INT8": torch.int8, "INT16": torch.int16, "INT32": torch.int32, "INT64": torch.int64,
    "UINT8": torch.uint8, "UINT16": torch.uint16, "UINT32": torch.uint32, "UINT64": torch.uint64,
}  # fmt: skip


def torch_dtype(number: int) -> torch.dtype:
    """The type a tensor of an ONNX type is held in: every float is float64."""
    import onnx_ir

    name = onnx_ir.DataType(number).name
    if name.startswith("FLOAT") or name in FLOATING:
        return torch.float64
    if name not in DTYPES:
        raise Elsewhere
    return DTYPES[name]


def _cast(call: Call, x: Tensor) -> Tensor:
    return x.to(torch_dtype(call.get("to")))


def _reshape(call: Call, x: Tensor, shape: Tensor | None = None) -> Tensor:
    sizes = numbers(shape) if shape is not None else list(call.get("shape"))
    if not call.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.get("axis", 1)
    rows = math.prod(x.shape[: axis if axis >= 0 else x.ndim + axis])
    return x.reshape(rows, x.numel() // rows) if rows else x.reshape(0, math.prod(x.shape[axis:]))


def _squeeze(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = call.axes(given, x.ndim)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    wanted = numbers(given) if given is not None else call.get("axes")
    rank = x.ndim + len(wanted)
    for axis in sorted(axis % rank for axis in wanted):
        x = x.unsqueeze(axis)
    return x


def _transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(*call.get("perm", range(x.ndim - 1, -1, -1)))


def _expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(numbers(shape))))


def _tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(numbers(repeats)) if x.ndim else x


def _concat(call: Call, *xs: Tensor) -> Tensor:
    return torch.cat(xs, call.get("axis", 1))


def _split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = call.get("axis", 0)
    given = numbers(sizes) if sizes is not None else call.get("split")
    if given is None:
        count = call.get("num_outputs", call.outputs)
        each = -(-x.shape[axis] // count)
        given = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    return tuple(torch.split(x, list(given), axis))


def _slice(call: Call, x: Tensor, *given: Tensor | None) -> Tensor:
    if call.opset < 10:
        starts, ends = list(call.get("starts")), list(call.get("ends"))
        axes, steps = call.get("axes"), None
    else:
        starts, ends, axes, steps = [None if v is None else numbers(v) for v in (*given, None, None)[:4]]  # type: ignore[assignment]
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[place] if axes is not None else place) % x.ndim
        step = steps[place] if steps is not None else 1
        size = x.shape[axis]
        taken = range(size)[_bounded(start, end, step, size)]
        if step == 1:
            x = x.narrow(axis, taken.start, len(taken)) if len(taken) else x.narrow(axis, 0, 0)
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64))
    return x


def _bounded(start: int, end: int, step: int, size: int) -> slice:
    """ONNX's bounds as Python's: an end below the first element, going down, means that the first is included."""
    if step < 0 and end + size < 0:
        return slice(start, None, step)
    return slice(start, end, step)


def _pad(
    call: Call, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    flat = [int(n) for n in (numbers(pads) if pads is not None else call.get("pads", call.get("paddings")))]
    if axes is not None:
        full = [0] * (2 * x.ndim)
        for index, axis in enumerate(numbers(axes)):
            full[axis % x.ndim], full[axis % x.ndim + x.ndim] = flat[index], flat[index + len(flat) // 2]
        flat = full
    mode = call.get("mode", "constant")
    if mode == "constant":
        filled = float(value) if value is not None and value.numel() else call.get("value", 0.0)
        return padded(x, flat, filled)
    for axis, (before, after) in enumerate(zip(flat[: x.ndim], flat[x.ndim :], strict=True)):
        if before or after:
            x = x.index_select(axis, _continued(x.shape[axis], before, after, mode))
    return x


def _continued(size: int, before: int, after: int, mode: str) -> Tensor:
    """Which elements an axis has that is continued at both ends."""
    places = np.arange(-before, size + after)
    if mode == "edge":
        places = places.clip(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:  # reflect
        period = max(2 * (size - 1), 1)
        places = np.abs((places + size - 1) % period - (size - 1)) if size > 1 else places * 0
    return torch.from_numpy(places)


def _gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0) % x.ndim
    wanted = torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64)
    picked = x.index_select(axis, wanted.reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0)
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64))


def _gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    if call.get("batch_dims", 0):
        raise Elsewhere
    return x[tuple(indices.to(torch.int64).unbind(-1))]


def _scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, how = call.get("axis", 0), call.get("reduction", "none")
    places = torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64)
    if how == "none":
        return x.scatter(axis, places, updates)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, places, updates, names[how])


def _scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    if call.get("reduction", "none") not in ("none", "add"):
        raise Elsewhere
    places = tuple(indices.to(torch.int64).unbind(-1))
    return x.index_put(places, updates, accumulate=call.get("reduction", "none") == "add")


def _depth_to_space(call: Call, x: Tensor) -> Tensor:
    block = call.get("blocksize")
    n, c, h, w = x.shape
    if call.get("mode", "DCR") == "CRD":
        parts = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(call: Call, x: Tensor) -> Tensor:
    block = call.get("blocksize")
    n, c, h, w = x.shape
    order = (0, 1, 3, 5, 2, 4) if call.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(order)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _shape(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[call.get("start", 0) : call.get("end")], dtype=torch.int64)


def _dropout(call: Call, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Any:
    if training is not None and bool(training):
        raise Elsewhere
    return (x, torch.ones_like(x, dtype=torch.bool))[: call.outputs]


def _cumsum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis) % x.ndim
    x = x.flip(along) if call.get("reverse", 0) else x
    y = x.cumsum(along, dtype=x.dtype)
    y = y - x if call.get("exclusive", 0) else y
    return y.flip(along) if call.get("reverse", 0) else y


def _grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(call.get("mode", "linear"), call.get("mode", "linear"))
    where = call.get("padding_mode", "zeros")
    return F.grid_sample(x, grid, mode=mode, padding_mode=where, align_corners=bool(call.get("align_corners", 0)))


def _topk(call: Call, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The first of equal elements comes first, which torch.topk does not promise."""
    axis, largest = call.get("axis", -1), bool(call.get("largest", 1))
    count = int(k) if k is not None else call.get("k")
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


STRUCTURE: dict[str, Operator] = {
    "Cast": _cast,
    "CastLike": lambda call, x, like: x.to(like.dtype),
    "Concat": _concat,
    "CumSum": _cumsum,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "GridSample": _grid_sample,
    "Identity": lambda call, x: x,
    "NonZero": lambda call, x: torch.nonzero(x).T,
    "Pad": _pad,
    "Reshape": _reshape,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": lambda call, x: torch.tensor(x.numel()),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _topk,
    "Transpose": _transpose,
    "Trilu": lambda call, x, k=None: (torch.triu if call.get("upper", 1) else torch.tril)(
        x, 0 if k is None else int(k)
    ),
    "Unsqueeze": _unsqueeze,
}
