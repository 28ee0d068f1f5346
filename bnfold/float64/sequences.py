"""Sequences, which are lists of tensors, and optionals, which are there or None."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnfold.float64.call import Call, Operator, numbers

Items = list[Any]


def _insert(call: Call, items: Items, item: Any, at: Tensor | None = None) -> Items:
    place = len(items) if at is None else int(at)
    return [*items[:place], item, *items[place:]]


def _erase(call: Call, items: Items, at: Tensor | None = None) -> Items:
    place = (-1 if at is None else int(at)) % len(items)
    return [*items[:place], *items[place + 1 :]]


def _join(call: Call, items: Items) -> Tensor:
    return (torch.stack if call.get("new_axis", 0) else torch.cat)(items, call.get("axis"))


def _divide(call: Call, x: Tensor, sizes: Tensor | None = None) -> Items:
    axis = call.get("axis", 0)
    if sizes is None:
        parts = list(torch.split(x, 1, axis))
        return parts if call.get("keepdims", 1) else [part.squeeze(axis) for part in parts]
    return list(torch.split(x, numbers(sizes) if sizes.ndim else int(sizes), axis))


SEQUENCES: dict[str, Operator] = {
    "ConcatFromSequence": _join,
    "Optional": lambda call, x=None: x,
    "OptionalGetElement": lambda call, x: x,
    "OptionalHasElement": lambda call, x=None: torch.tensor(x is not None),
    "SequenceAt": lambda call, items, at: items[int(at)],
    "SequenceConstruct": lambda call, *items: list(items),
    "SequenceEmpty": lambda call: [],
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": lambda call, items: torch.tensor(len(items)),
    "SplitToSequence": _divide,
}
