"""Operators that make tensors from attributes and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnfold.float64.call import Call, Elsewhere, Operator, numbers, widened


def _constant(call: Call) -> Any:
    for name, kind in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", None),
        ("value_floats", None),
    ):
        if name in call.attrs:
            return widened(np.asarray(call.get(name), dtype=kind or np.float64))
    for name in ("value_string", "value_strings"):
        if name in call.attrs:
            return np.asarray(call.get(name), dtype=object)
    if "value" not in call.attrs:
        raise Elsewhere
    return widened(call.get("value").numpy())


def _constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    held = call.get("value")
    value = torch.zeros(1, dtype=torch.float64) if held is None else widened(held.numpy())
    if not isinstance(value, Tensor):
        raise Elsewhere
    return value.reshape(()).expand(numbers(shape)).clone()


def _range(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    count = max(int(np.ceil((float(limit) - float(start)) / float(delta))), 0)
    return start + delta * torch.arange(count, dtype=start.dtype)


def _one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    size, axis = int(depth), call.get("axis", -1)
    places = torch.where(indices < 0, indices + size, indices).to(torch.int64)
    axis = axis % (indices.ndim + 1)
    hot = places.unsqueeze(axis) == torch.arange(size).reshape(-1, *(1,) * (indices.ndim - axis))
    return torch.where(hot, values[1], values[0])


CONSTANTS: dict[str, Operator] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "OneHot": _one_hot,
    "Range": _range,
}
