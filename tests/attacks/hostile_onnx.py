"""ONNX models with something hostile in one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]


def model(
    nodes: Sequence[onnx.NodeProto] = (),
    *,
    functions: Sequence[onnx.FunctionProto] = (),
    weights: dict[str, np.ndarray] | None = None,
    x: Sequence[int | str] = ("batch", 2),
) -> onnx.ModelProto:
    """x → nodes → y; a MatMul with `w` where there are none."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in {"w": NUMBERS, **(weights or {})}.items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS, functions=functions, ir_version=10)


def external(location: str, name: str = "w", **entries: object) -> onnx.TensorProto:
    """A tensor of 2×3 floats that lies in another file."""
    tensor = TensorProto(name=name, dims=[2, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "length": NUMBERS.nbytes, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_weight(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """The model with this weight."""
    made = model()
    made.graph.initializer[0].CopyFrom(tensor)
    return made


def constant(value: np.ndarray, output: str) -> onnx.NodeProto:
    """A Constant."""
    return helper.make_node("Constant", [], [output], value=numpy_helper.from_array(value, output))


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    """A function a → b of the domain `own`."""
    return helper.make_function("own", name, ["a"], ["b"], list(nodes), OPSETS)


def body(*nodes: onnx.NodeProto, initializers: Sequence[onnx.TensorProto] = ()) -> onnx.GraphProto:
    """A body without inputs, whose result is `r`."""
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), "body", [], [result], list(initializers))


def branches(inner: onnx.GraphProto, output: str = "y") -> list[onnx.NodeProto]:
    """An If of which one branch is this body."""
    other = body(helper.make_node("Relu", ["x"], ["r"]))
    return [
        constant(np.array(True), f"flag_{output}"),
        helper.make_node("If", [f"flag_{output}"], [output], then_branch=inner, else_branch=other),
    ]


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])
