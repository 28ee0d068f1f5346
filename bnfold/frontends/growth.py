"""How large a result of constants is, before it is computed: a file of a hundred bytes may ask for 10¹² numbers.

What an operator's declared result says is the file's word; here only the operands count, which are there. An operator
that is not listed may grow by what its attributes say, and is left to the runtime: folding is never owed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.frontends.context import attr

Arrays = Sequence[NDArray[Any]]

BROADCASTING = {
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum",
    "Where", "Xor",
}  # fmt: skip
WITHIN = {  # as large as the largest operand, or smaller
    "Abs", "Acos", "Acosh", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "BitwiseNot",
    "Cast", "CastLike", "Ceil", "Celu", "Compress", "Cos", "Cosh", "CumSum", "DepthToSpace", "Elu", "Erf", "Exp",
    "EyeLike", "Flatten", "Floor", "GatherElements", "Gelu", "GroupNormalization", "HardSigmoid", "HardSwish",
    "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Log",
    "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not", "RMSNormalization",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND", "Selu",
    "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign",
    "SpaceToDepth", "Sqrt", "Squeeze", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Transpose", "Trilu", "Unique",
    "Unsqueeze",
}  # fmt: skip


def result_size(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> int | None:
    """An upper bound on the elements of a result, and on the work it takes in units of them.

    Args:
        node: The operator.
        arrays: Its operands; None where one is left out.

    Returns:
        The bound; None where there is none, or the operands do not fit together.
    """
    given = [array for array in arrays if array is not None]
    if node.op_type in WITHIN:
        return max((array.size for array in given), default=None)
    try:
        if node.op_type in BROADCASTING:
            return math.prod(np.broadcast_shapes(*(array.shape for array in given)))
        size = _SIZES.get(node.op_type)
        return None if size is None else size(node, given)
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError):
        return None


def _numbers(array: NDArray[Any]) -> list[int]:
    return [int(number) for number in array.ravel()[:64]]


def _expand(node: ir.Node, arrays: Arrays) -> int:
    return math.prod(np.broadcast_shapes(arrays[0].shape, tuple(_numbers(arrays[1]))))


def _gather(node: ir.Node, arrays: Arrays) -> int:
    data, indices = arrays
    rows = int(data.shape[int(attr(node, "axis", 0))])
    return int(indices.size) * (int(data.size) // max(rows, 1))


def _gather_nd(node: ir.Node, arrays: Arrays) -> int:
    data, indices = arrays
    return int(indices.size) * math.prod(data.shape[indices.shape[-1] :])


def _matmul(node: ir.Node, arrays: Arrays) -> int:
    """The products that are computed, 64 of which take as long as one element elsewhere."""
    a, b = arrays[:2]
    wide = int(a.size) // max(a.shape[-1], 1) if a.ndim > 1 else 1
    high = int(b.size) // max(b.shape[-2], 1) if b.ndim > 1 else 1
    result = wide * high // (max(math.prod(b.shape[:-2]), 1) if a.ndim > 2 and b.ndim > 2 else 1)
    return max(result, result * int(a.shape[-1]) // 64)


def _gemm(node: ir.Node, arrays: Arrays) -> int:
    a, b = arrays[:2]
    inner = int(a.shape[0 if attr(node, "transA", 0) else 1])
    result = (int(a.size) // max(inner, 1)) * (int(b.size) // max(inner, 1))
    return max(result, result * inner // 64)


def _pad(node: ir.Node, arrays: Arrays) -> int:
    x, pads = arrays[0], _numbers(arrays[1])
    return math.prod(size + 2 * max((abs(pad) for pad in pads), default=0) for size in x.shape)


def _range(node: ir.Node, arrays: Arrays) -> int:
    start, limit, delta = (float(array.item()) for array in arrays)
    return max(int((limit - start) / delta) + 1, 0)


_SIZES: dict[str, Callable[[ir.Node, Arrays], int]] = {
    "Concat": lambda node, arrays: sum(array.size for array in arrays),
    "ConstantOfShape": lambda node, arrays: math.prod(_numbers(arrays[0])),
    "Expand": _expand,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "NonZero": lambda node, arrays: arrays[0].size * max(arrays[0].ndim, 1),
    "OneHot": lambda node, arrays: arrays[0].size * abs(int(arrays[1].item())),
    "Pad": _pad,
    "Range": _range,
    "Tile": lambda node, arrays: arrays[0].size * math.prod(_numbers(arrays[1])),
}
