"""What is plain to see agrees with ONNX's own inference, and nothing is said where that says nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_case import Case

from bnfold.frontends import shapes
from bnfold.frontends.forward import RULES, plain_result

OPERANDS = {"Add": 2, "BatchNormalization": 5, "Div": 2, "Mul": 2, "PRelu": 2, "Sub": 2}


def of_last_node(model: onnx.ModelProto) -> tuple[Any, Any]:
    """What a rule says of the last node, and what ONNX does: a dtype and sizes, or None."""
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].ClearField("type")
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph.outputs[0]
    node = list(ir.from_proto(model).graph)[-1]
    found = plain_result(node)
    known = None if inferred.shape is None or inferred.dtype is None else (inferred.dtype, list(inferred.shape))
    return None if found is None else (found[0].dtype, list(found[1])), known


@pytest.mark.parametrize("op_type", sorted(set(RULES) - {"Conv"}))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_operator_whose_result_is_like_its_operand(op_type: str, dtype: type) -> None:
    case = Case(dtype=dtype, opset=18, ir_version=10)
    x = case.input("N", 3, 4, 4)
    rest = [case.input("N", 3, 4, 4, name="y")] if OPERANDS.get(op_type) == 2 else []
    rest = [case.draw(3, low=0.5) for _ in range(4)] if op_type == "BatchNormalization" else rest
    found, known = of_last_node(case.model(case.op(op_type, x, *rest)))
    assert found == known
    assert found is not None


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 2, 0, 1], "strides": [2, 1]},
        {"dilations": [2, 3], "strides": [3, 2]},
        {"group": 3, "kernel_shape": [2, 3]},
        {"auto_pad": "NOTSET"},
    ],
)
def test_a_convolution_over_known_sizes(attributes: dict[str, Any]) -> None:
    case = Case(dtype=np.float32, ir_version=10)
    x = case.input("N", 3, 9, 11)
    weight = case.draw(6, 1 if attributes.get("group") else 3, 2, 3)
    found, known = of_last_node(case.model(case.op("Conv", x, weight, **attributes)))
    assert found == known
    assert found is not None


@pytest.mark.parametrize(
    "attributes", [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "VALID"}, {"dilations": [9, 9]}, {"pads": [1, 1]}]
)
def test_a_convolution_that_is_not_plain_is_left_to_onnx(attributes: dict[str, Any]) -> None:
    case = Case(dtype=np.float32, ir_version=10)
    case.op("Conv", case.input("N", 3, 9, 9), case.draw(6, 3, 3, 3), outputs=["y"], **attributes)
    node = next(iter(ir.from_proto(case.model("y")).graph))
    assert plain_result(node) is None


def test_sizes_without_a_name_and_unequal_operands_are_left_to_onnx() -> None:
    case = Case(dtype=np.float32, ir_version=10)
    x, row, image = case.input("N", 3), case.input(3, name="row"), case.input("N", 3, "H", 8, name="image")
    results = [case.op("Add", x, row), case.op("Conv", image, case.draw(4, 3, 3, 3)), case.op("Relu", x)]
    add, conv, relu = ir.from_proto(case.model(*results)).graph
    relu.inputs[0].shape = ir.Shape([None, 3])
    assert [plain_result(node) for node in (add, conv, relu)] == [None, None, None]


def test_other_domains_results_and_types_are_left_to_onnx() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3]))
    listed = ir.Value(name="l", type=ir.SequenceType(ir.TensorType(ir.DataType.FLOAT)), shape=ir.Shape([2, 3]))
    assert plain_result(ir.Node("mine", "Relu", [x])) is None
    assert plain_result(ir.Node("", "BatchNormalization", [x], num_outputs=3)) is None
    assert plain_result(ir.Node("", "Identity", [listed])) is None
    assert plain_result(ir.Node("", "Relu", [x])) == (x.type, x.shape)


def test_a_plain_network_needs_no_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(dtype=np.float32, ir_version=10)
    x = y = case.input("N", 3, 8, 8)
    for _ in range(3):
        y = case.op("Conv", y, case.draw(3, 3, 3, 3), pads=[1, 1, 1, 1])
        y = case.op("Add", x, case.op("Relu", y))
    model = ir.from_proto(case.model(y))
    monkeypatch.setattr(shapes, "_infer_together", lambda model: pytest.fail("inferred"))
    assert shapes.complete_shapes(model)
    assert all(value.shape == ["N", 3, 8, 8] for node in model.graph for value in node.outputs)
    assert not shapes.complete_shapes(model)


def test_a_declared_scalar_stays_one() -> None:
    case = Case(dtype=np.float32, ir_version=10)
    model = ir.from_proto(case.model(case.op("Relu", case.input("N", 3))))
    value = model.graph.outputs[0]
    value.type, value.shape = None, ir.Shape([])
    shapes.complete_shapes(model)
    assert value.dtype is ir.DataType.FLOAT
    assert value.shape.rank() == 0
