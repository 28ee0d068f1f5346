"""What an ONNX operator makes of constants, evaluated once, in float64 where they are floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from bnfold.frontends.context import attr, not_at_inference
from bnfold.frontends.growth import result_size
from bnfold.units.affine import batch_norm_affine

LARGEST = 1 << 26  # elements of a folded result
IMPURE = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Dropout",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan",
}  # fmt: skip

# What exporters write most, so that small models do not wait for the reference evaluator.
DIRECT: dict[str, Callable[..., NDArray[Any]]] = {
    "Expand": lambda node, x, shape: x * np.ones([int(n) for n in shape], dtype=x.dtype),
    "Mul": lambda node, x, y: np.multiply(x, y),
    "Add": lambda node, x, y: np.add(x, y),
    "Sub": lambda node, x, y: np.subtract(x, y),
    "Transpose": lambda node, x: np.transpose(x, attr(node, "perm", None)),
    "Reshape": lambda node, x, shape: _reshaped(x, shape, bool(attr(node, "allowzero", 0))),
}
MOVING = {
    "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
}  # fmt: skip


def evaluated(node: ir.Node, arrays: Sequence[NDArray[Any] | None], opset: int) -> NDArray[Any] | None:
    """What a node makes of constants, by the reference implementation; None where that must not be tried.

    Args:
        node: The operator.
        arrays: Its operands; floats may be given as float64, then the result is float64 as well.
        opset: The version of the standard operators.
    """
    size = result_size(node, arrays)
    if size is None or size > LARGEST:
        return None
    try:
        with np.errstate(all="ignore"):
            result = _computed(node, arrays, opset)
    except Exception:  # whatever the reference cannot do stays as it is: folding is never owed
        return None
    if not isinstance(result, (np.ndarray, np.generic)) or result.dtype.kind in "OUS":
        return None  # a sequence, or strings
    return np.asarray(result)


def _computed(node: ir.Node, arrays: Sequence[NDArray[Any] | None], opset: int) -> Any:
    direct = DIRECT.get(node.op_type)
    if direct is not None and all(a is not None for a in arrays):
        return direct(node, *arrays)
    proto = ir.serde.serialize_node(node)
    feeds = {v.name or "": a for v, a in zip(node.inputs, arrays, strict=True) if v is not None and a is not None}
    [result] = ReferenceEvaluator(proto, opsets={"": opset}).run(None, feeds)
    return result


def _reshaped(x: NDArray[Any], shape: NDArray[Any], allow_zero: bool) -> NDArray[Any]:
    sizes = [int(n) for n in shape]
    return x.reshape(sizes if allow_zero else [n or x.shape[i] for i, n in enumerate(sizes)])


def stored(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant holds; None for strings and sparse tensors."""
    held = node.attributes.get("value")
    if held is not None:
        tensor = held.as_tensor()
        return None if tensor.dtype is ir.DataType.STRING else tensor
    for name, dtype in (("value_int", "i8"), ("value_ints", "i8"), ("value_float", "f4"), ("value_floats", "f4")):
        if name in node.attributes:
            return ir.Tensor(np.asarray(node.attributes[name].value, dtype=dtype))
    return None


def normalised(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """A BatchNorm of a constant at inference, as float64."""
    given = [a for a in arrays if a is not None]
    if len(given) != 5 or given[0].ndim < 2 or not_at_inference(node) is not None:
        return None
    x, gamma, beta, mean, var = given
    affine = batch_norm_affine(gamma, beta, mean, var, float(attr(node, "epsilon", 1e-5)), precision=53)
    full = (-1,) + (1,) * (x.ndim - 2)
    return np.asarray(x.astype(np.float64) * affine.scale.reshape(full) + affine.shift.reshape(full))


def static_shape(node: ir.Node) -> NDArray[Any] | None:
    """The result of a Shape whose sizes are all known."""
    x = node.inputs[0]
    if x is None or x.shape is None:
        return None
    start = node.attributes.get("start")
    end = node.attributes.get("end")
    dims = list(x.shape)[slice(start.value if start else 0, end.value if end else None)]
    if not all(isinstance(d, int) for d in dims):
        return None
    return np.array(dims, dtype=np.int64)
