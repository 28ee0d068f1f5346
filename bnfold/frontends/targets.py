"""Where a Reshape goes: exporters compute its target, although at most one size of it is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def settled_target(
    target: ir.Value, const: Callable[[ir.Value | None], NDArray[Any] | None]
) -> NDArray[np.int64] | None:
    """The target of a Reshape where it is the same at every run: a size that is computed is what is left over.

    Args:
        target: The Reshape's second operand.
        const: Gives the array behind a value that is the same at every run, else None.

    Returns:
        The sizes, −1 for the one that is left over; None where more than one is computed.
    """
    known = const(target)
    if known is not None:
        return np.asarray(known, dtype=np.int64).reshape(-1)
    producer = target.producer()
    if producer is None or producer.op_type != "Concat":
        return None
    sizes: list[int] = []
    for part in producer.inputs:
        array = const(part)
        if array is not None:
            sizes += [int(v) for v in array.reshape(-1)]
        elif part is not None and _holds_one(part):
            sizes.append(-1)
        else:
            return None
    return np.array(sizes, dtype=np.int64) if sizes.count(-1) == 1 and 0 not in sizes else None


def take_sizes(result: ir.Value, target: NDArray[np.int64]) -> None:
    """Sizes that a Reshape's target names are those of its result, even where the model declares none."""
    if result.shape is not None and target.shape == (result.shape.rank(),):
        sizes = zip(target, result.shape, strict=True)
        result.shape = ir.Shape([int(size) if size > 0 else dim for size, dim in sizes])


def _holds_one(value: ir.Value) -> bool:
    """Whether a one-dimensional value has a single element."""
    if value.shape is not None:
        return value.shape.rank() == 1 and value.shape[0] == 1
    producer = value.producer()
    if producer is None or producer.op_type not in ("Reshape", "Unsqueeze") or producer.inputs[0] is None:
        return False
    source = producer.inputs[0].shape
    return source is not None and source.rank() == 0
