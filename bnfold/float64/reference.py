"""Operators that have no torch form here: `onnx.reference`, whose operators take any dtype, on float64 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

from bnfold.float64.call import widened


def by_reference(node: ir.Node, operands: list[Any], opset: int) -> tuple[Any, ...]:
    """What a node makes of its operands; floats come back as float64.

    Args:
        node: The operator.
        operands: Tensors, arrays of strings, lists of those, or None.
        opset: The version of its domain.

    Raises:
        Exception: Whatever the reference raises where it does not know the operator or its operands.
    """
    from onnx.reference import ReferenceEvaluator

    proto = ir.serde.serialize_node(node)
    given = {v.name or "": _array(x) for v, x in zip(node.inputs, operands, strict=True) if v is not None}
    results = ReferenceEvaluator(proto, opsets={node.domain: opset}).run(None, given)
    return tuple(_held(result) for result in results)


def _array(value: Any) -> Any:
    if isinstance(value, list):
        return [_array(item) for item in value]
    return value.numpy() if isinstance(value, Tensor) else value


def _held(value: Any) -> Any:
    if value is None:
        return None
    return [_held(item) for item in value] if isinstance(value, list) else widened(np.asarray(value))
