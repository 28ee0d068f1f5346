"""Resize and Upsample: along each axis a matrix of weights, whatever the mode, applied one axis after the other.

https://onnx.ai/onnx/operators/onnx__Resize.html. Where the nearest place is picked, coordinates are computed in
float32, the type of `scales`, as runtimes do: which of two places is nearest would else hang on the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnfold.float64.call import Call, Elsewhere, Operator, numbers

Coordinates = NDArray[Any]


def resize(call: Call, x: Tensor, *given: Tensor | None) -> Tensor:
    """Resize of every version, and Upsample."""
    roi, scales, sizes = _operands(call, given)
    axes = [axis % x.ndim for axis in call.get("axes") or range(x.ndim)]
    if sizes is not None:
        scales, sizes = _from_sizes(call, [x.shape[axis] for axis in axes], sizes)
    if scales is None:
        raise Elsewhere
    outside = None
    for place, axis in enumerate(axes):
        size, scale = x.shape[axis], scales[place]
        new = sizes[place] if sizes is not None else math.floor(size * scale)
        window = (roi[place], roi[place + len(axes)]) if roi else (0.0, 1.0)
        if scale == 1 and new == size and window == (0.0, 1.0):
            continue
        where = _coordinates(call, size, new, scale, window)
        x = _along(call, x, axis, where, scale)
        if call.get("coordinate_transformation_mode") == "tf_crop_and_resize":
            beyond = torch.from_numpy((where < 0) | (where > size - 1)).reshape(-1, *(1,) * (x.ndim - axis - 1))
            outside = beyond if outside is None else outside | beyond
    return x if outside is None else x.masked_fill(outside, call.get("extrapolation_value", 0.0))


def _operands(
    call: Call, given: tuple[Tensor | None, ...]
) -> tuple[list[float] | None, list[float] | None, list[int] | None]:
    values = [None if v is None or not v.numel() else numbers(v) for v in (*given, None, None, None)]
    if call.op == "Upsample" or call.opset < 11:
        return None, values[0] or list(call.get("scales")), None
    return values[0], values[1], values[2]


def _from_sizes(call: Call, old: list[int], new: list[int]) -> tuple[list[float], list[int]]:
    """The scales that sizes mean, and the sizes where the ratio of the axes is kept."""
    exact = [n / o for n, o in zip(new, old, strict=True)]
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        common = min(exact) if policy == "not_larger" else max(exact)
        return [common] * len(old), [math.floor(common * o + 0.5) for o in old]
    return exact, new


def _coordinates(call: Call, size: int, new: int, scale: float, window: tuple[float, float]) -> Coordinates:
    """Where each new place lies on the old axis."""
    old_style = call.op == "Upsample" or call.opset < 11
    mode = "asymmetric" if old_style else call.get("coordinate_transformation_mode", "half_pixel")
    kind: Any = np.float32 if call.get("mode", "nearest") == "nearest" else np.float64
    x, by = np.arange(new, dtype=kind), kind(scale)
    if mode == "asymmetric":
        return np.asarray(x / by)
    if mode == "align_corners":
        return x * kind(size - 1) / kind(new - 1) if new > 1 else x * 0
    if mode == "tf_crop_and_resize":
        start, end = window
        if new > 1:
            return np.asarray(start * (size - 1) + x * (end - start) * (size - 1) / (new - 1))
        return np.full(1, 0.5 * (start + end) * (size - 1))
    centred = (x + kind(0.5)) / by - kind(0.5)
    if mode == "pytorch_half_pixel" and new <= 1:
        return x * 0
    if mode == "half_pixel_symmetric":
        adjusted = kind(new) / (by * kind(size))
        return np.asarray(centred + kind(size / 2) * (1 - adjusted))
    return np.asarray(centred)


def _along(call: Call, x: Tensor, axis: int, where: Coordinates, scale: float) -> Tensor:
    size, mode = x.shape[axis], call.get("mode", "nearest")
    if mode == "nearest":
        picked = _nearest(call, where).clip(0, size - 1).astype(np.int64)
        return x.index_select(axis, torch.from_numpy(picked))
    matrix = _weights(call, where, size, scale, cubic=mode == "cubic")
    return torch.movedim(torch.movedim(x, axis, -1) @ torch.from_numpy(matrix.T.copy()), -1, axis)


def _nearest(call: Call, where: Coordinates) -> Coordinates:
    old_style = call.op == "Upsample" or call.opset < 11
    mode = "floor" if old_style else call.get("nearest_mode", "round_prefer_floor")
    if mode == "floor":
        return np.asarray(np.floor(where))
    if mode == "ceil":
        return np.asarray(np.ceil(where))
    return np.asarray(np.ceil(where - 0.5) if mode == "round_prefer_floor" else np.floor(where + 0.5))


def _weights(call: Call, where: Coordinates, size: int, scale: float, *, cubic: bool) -> NDArray[np.float64]:
    """`float64[new, old]`: what each new place takes of each old one; those beyond the ends go to the ends."""
    shrink = min(scale, 1.0) if call.get("antialias", 0) else 1.0
    radius = (2.0 if cubic else 1.0) / shrink
    matrix = np.zeros((len(where), size))
    exclude = bool(call.get("exclude_outside", 0))
    for row, at in enumerate(where):
        places = np.arange(math.floor(at - radius) + 1, math.ceil(at + radius) + (at == math.floor(at)))
        distance = np.abs(places - at) * shrink
        weights = _cubic(distance, call.get("cubic_coeff_a", -0.75)) if cubic else np.maximum(1 - distance, 0)
        if exclude:
            weights = np.where((places >= 0) & (places < size), weights, 0.0)
        if exclude or shrink < 1.0:
            weights = weights / weights.sum()
        np.add.at(matrix[row], places.clip(0, size - 1), weights)
    return matrix


def _cubic(d: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Keys, Cubic convolution interpolation for digital image processing, 1981."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


RESIZE: dict[str, Operator] = {"Resize": resize, "Upsample": resize}
