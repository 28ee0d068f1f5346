"""Small pairs of models, written by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from bnfold.certificate import Certificate, certify
from bnfold.frontends.onnx import fold_model

Shape = list[str | int]
IMAGE: Shape = ["N", 3, 6, 6]


def proved(before: onnx.ModelProto, after: onnx.ModelProto) -> Certificate:
    return certify(ir.from_proto(before), ir.from_proto(after))


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, output.split(), name=output.split()[0], **attributes)


def graph(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: Shape = IMAGE,
    inputs: dict[str, tuple[int, Shape]] | None = None,
    opset: int = 18,
    outputs: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of `x` (and more inputs) that hands out what its last node makes."""
    wanted = outputs or {nodes[-1].output[0]: TensorProto.FLOAT}
    made = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, kind, sizes)
            for name, (kind, sizes) in {"x": (TensorProto.FLOAT, shape), **(inputs or {})}.items()
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in wanted.items()],
        [
            numpy_helper.from_array(value if value.dtype.kind in "iub" else value.astype(np.float32), name)
            for name, value in (constants or {}).items()
        ],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def dead(weight: np.ndarray, *channels: int) -> np.ndarray:
    """A weight that writes nothing to some output channels."""
    changed = weight.copy()
    changed[list(channels)] = 0
    return changed


def per_channel(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1, 1)


def folded(before: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(fold_model(ir.from_proto(before))[0])
