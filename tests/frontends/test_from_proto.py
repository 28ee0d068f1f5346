"""A ModelProto is read as `onnx_ir` reads it, and what did not change is written as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_case import Case

from bnfold import fold
from bnfold.frontends.from_proto import read_proto
from bnfold.frontends.to_proto import write_proto


def plain() -> onnx.ModelProto:
    """Conv → BatchNorm → Clip without a lower bound → Reshape by a Constant, with texts on everything that has some."""
    case = Case(dtype=np.float32, ir_version=10)
    x = case.input("N", 3, 4, 4)
    y = case.op("Conv", x, case.draw(4, 3, 3, 3), case.draw(4), kernel_shape=[3, 3], pads=[1, 1, 1, 1], label="conv")
    parameters = [case.draw(4), case.draw(4), case.draw(4), case.draw(4, low=0.5)]
    y = case.op("BatchNormalization", y, *parameters, epsilon=1e-3, label="norm")
    y = case.op("Clip", y, "", case.const(np.array(6.0)))
    shape = case.op("Constant", value=numpy_helper.from_array(np.array([0, -1])))
    y = case.op("Reshape", y, shape)
    model = case.model(y)
    model.doc_string, model.producer_name, model.domain, model.model_version = "about it", "me", "here", 3
    model.metadata_props.add(key="of", value="the model")
    model.graph.doc_string = "about the graph"
    model.graph.metadata_props.add(key="of", value="the graph")
    for node in model.graph.node:
        node.doc_string = f"about {node.op_type}"
        node.metadata_props.add(key="of", value=node.op_type)
    declared = [(model.graph.node[0].output[0], ("N", 4, 4, 4)), (model.graph.initializer[0].name, (4, 3, 3, 3))]
    for name, sizes in declared:
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes, doc_string="a value")
        info.metadata_props.add(key="of", value=name)
        model.graph.value_info.append(info)
    return model


def overridable() -> onnx.ModelProto:
    """An initializer that is an input as well, and one that nothing reads."""
    case = Case(dtype=np.float32, ir_version=10)
    x, gain = case.input("N", 3), case.input(3, name="gain")
    case.draw(3, name="gain")
    case.draw(2, name="unread")
    return case.model(case.op("Mul", x, gain))


def external() -> onnx.ModelProto:
    """A weight that lies in another file."""
    model = plain()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    weight.external_data.add(key="length", value="432")
    return model


def optional_results() -> onnx.ModelProto:
    """A Dropout whose mask has no name, in an order that has to be looked up."""
    case = Case(dtype=np.float32, ir_version=10)
    x = case.input("N", 3)
    return case.model(case.op("Relu", case.op("Dropout", x, outputs=["dropped", ""])[0]))


def with_body() -> onnx.ModelProto:
    case = Case(dtype=np.float32, ir_version=10)
    x, flag = case.input("N", 3), case.input(name="flag", dtype=np.bool_)
    branches = [
        helper.make_graph(
            [helper.make_node(op, [x], [f"{op}_y"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, ["N", 3])],
        )
        for op in ("Relu", "Neg")
    ]
    return case.model(case.op("If", flag, then_branch=branches[0], else_branch=branches[1]))


def quantized() -> onnx.ModelProto:
    model = plain()
    annotation = model.graph.quantization_annotation.add(tensor_name=model.graph.node[0].output[0])
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=model.graph.initializer[1].name)
    return model


def with_function() -> onnx.ModelProto:
    model = plain()
    opsets = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, opsets))
    model.opset_import.add(domain="mine", version=1)
    return model


PLAIN = [plain, overridable, external, optional_results]
RARE = [with_body, quantized, with_function]


def content(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("make", [*PLAIN, *RARE])
def test_it_is_read_as_onnx_ir_reads_it(make: Callable[[], onnx.ModelProto]) -> None:
    proto = make()
    before = content(proto)
    model, origin = read_proto(proto)
    expected = ir.serde.serialize_model(ir.serde.deserialize_model(make()))
    assert content(ir.serde.serialize_model(model)) == content(expected)
    assert make is optional_results or content(write_proto(model, origin)) == content(expected)
    assert content(proto) == before


def test_a_result_without_a_name_stays() -> None:
    proto = optional_results()
    assert write_proto(*read_proto(proto)).graph.node == proto.graph.node


@pytest.mark.parametrize("make", PLAIN)
def test_what_is_plain_knows_where_it_came_from(make: Callable[[], onnx.ModelProto]) -> None:
    model, origin = read_proto(make())
    assert origin is not None
    assert set(origin.nodes) == set(model.graph)


@pytest.mark.parametrize("make", RARE)
def test_what_is_rare_is_left_to_onnx_ir(make: Callable[[], onnx.ModelProto]) -> None:
    assert read_proto(make())[1] is None


def test_what_is_not_sound_is_left_to_onnx_ir() -> None:
    twice, nowhere = plain(), plain()
    twice.graph.node[1].output[0] = twice.graph.node[0].output[0]
    with pytest.raises(ir.serde.SerdeError):
        read_proto(twice)
    nowhere.graph.node[1].input[0] = "nowhere"
    assert read_proto(nowhere)[1] is None


def test_equal_types_and_attributes_are_one_object() -> None:
    case = Case(dtype=np.float32, ir_version=10)
    y = case.input("N", 3)
    for _ in range(2):
        y = case.op("LeakyRelu", y, alpha=0.25)
    model = case.model(y)
    for node in model.graph.node[:1]:
        model.graph.value_info.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, ["N", 3]))
    read, _ = read_proto(model)
    first, second = read.graph
    assert first.attributes["alpha"] is second.attributes["alpha"]
    assert first.outputs[0].shape is read.graph.inputs[0].shape
    assert read.graph.inputs[0].shape is not None
    assert read.graph.inputs[0].shape.frozen


def test_what_does_not_change_keeps_its_message_and_the_caller_keeps_his() -> None:
    proto = plain()
    proto.training_info.add().algorithm.name = "not known to onnx_ir"
    before = content(proto)
    folded = fold(proto)
    assert content(proto) == before
    assert folded.plan.folded == 1
    assert folded.model.training_info == proto.training_info
    nodes = {node.op_type: node for node in folded.model.graph.node}
    clip = onnx.NodeProto()
    clip.CopyFrom(proto.graph.node[2])
    clip.input[0] = nodes["Conv"].output[0]
    assert nodes["Clip"] == clip
    assert nodes["Conv"] == proto.graph.node[0]


def test_a_changed_attribute_is_written() -> None:
    model, origin = read_proto(plain())
    conv = model.graph.node("conv")
    conv.attributes["pads"] = ir.AttrInt64s("pads", [2, 2, 2, 2])
    written = write_proto(model, origin).graph.node[0]
    assert [list(a.ints) for a in written.attribute if a.name == "pads"] == [[2, 2, 2, 2]]
    assert written.doc_string == "about Conv"


def test_a_changed_type_shape_or_name_is_written() -> None:
    model, origin = read_proto(plain())
    y = model.graph.node("conv").outputs[0]
    y.shape = ir.Shape([1, 4, 4, 4])
    [info] = [v for v in write_proto(model, origin).graph.value_info if v.name == y.name]
    assert [d.dim_value for d in info.type.tensor_type.shape.dim] == [1, 4, 4, 4]
    y.type = ir.TensorType(ir.DataType.DOUBLE)
    [info] = [v for v in write_proto(model, origin).graph.value_info if v.name == y.name]
    assert info.type.tensor_type.elem_type == TensorProto.DOUBLE
    y.name = "renamed"
    written = write_proto(model, origin).graph
    assert "renamed" in {v.name for v in written.value_info}
    assert written.node[0].output == ["renamed"] == written.node[1].input[:1]


def test_a_tensor_under_another_name_is_named_in_the_result_alone() -> None:
    proto = plain()
    before = content(proto)
    model, origin = read_proto(proto)
    weight = model.graph.node("conv").inputs[1]
    assert weight is not None
    tensor = weight.const_value
    model.graph.initializers.pop(weight.name or "")
    model.graph.register_initializer(ir.Value(name="other", type=weight.type, shape=weight.shape, const_value=tensor))
    assert "other" in {t.name for t in write_proto(model, origin).graph.initializer}
    assert content(proto) == before
