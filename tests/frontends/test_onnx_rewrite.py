"""The rewritten model: what it keeps of the old one, and that no operator of ONNX makes the fold fail or lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_case import Case, assert_same, check, draw, fold, run

from bnfold.frontends.onnx import fold_model


def documented() -> onnx.ModelProto:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5, name="image"), 4, 3, 3, 3, label="stem")
    y = c.op("Sigmoid", c.bn(y, 4, label="norm"), label="act")
    proto = c.model(y)
    proto.producer_name, proto.doc_string, proto.model_version = "maker", "what it is", 7
    proto.graph.name, proto.graph.doc_string = "net", "the graph"
    proto.metadata_props.add(key="author", value="someone")
    proto.graph.metadata_props.add(key="stage", value="one")
    proto.graph.node[0].doc_string = "the first layer"
    proto.graph.node[0].metadata_props.add(key="module", value="features.0")
    proto.graph.input[0].doc_string = "an image"
    proto.graph.output[0].doc_string = "scores"
    return proto


def test_names_documentation_and_metadata_stay() -> None:
    folded = check(documented())
    before, after = folded.before, folded.after
    assert after.producer_name == "maker"
    assert (after.doc_string, after.model_version) == ("what it is", 7)
    assert (after.graph.name, after.graph.doc_string) == ("net", "the graph")
    assert {p.key: p.value for p in after.metadata_props} == {"author": "someone"}
    assert {p.key: p.value for p in after.graph.metadata_props} == {"stage": "one"}
    assert [n.name for n in after.graph.node] == ["stem", "act"]
    assert after.graph.node[0].doc_string == "the first layer"
    assert after.graph.node[0].metadata_props[0].value == "features.0"
    assert list(after.graph.input) == list(before.graph.input)
    assert after.graph.output[0] == before.graph.output[0]
    assert after.ir_version == before.ir_version
    assert after.opset_import == before.opset_import


def test_a_conv_that_takes_over_padding_keeps_its_documentation() -> None:
    c = Case()
    y = c.op("Pad", c.input("N", 3, 5, 5), c.ints(0, 0, 1, 1, 0, 0, 1, 1))
    proto = c.model(c.conv(y, 4, 3, 3, 3, label="stem"))
    proto.graph.node[1].doc_string = "the first layer"
    proto.graph.node[1].metadata_props.add(key="module", value="features.0")
    folded = check(proto)
    assert folded.ops() == ["Conv"]
    [node] = folded.after.graph.node
    assert (node.name, node.doc_string) == ("stem", "the first layer")
    assert [p.value for p in node.metadata_props] == ["features.0"]


def test_the_declared_shape_of_an_output_stays() -> None:
    c = Case()
    proto = c.model(c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 3, 3), 4))
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert check(proto).after.graph.output[0] == proto.graph.output[0]


@pytest.mark.parametrize("name", ["", "same"])
def test_nodes_without_a_name_or_with_one_for_all(name: str) -> None:
    c = Case()
    x = c.input("N", 3, 5, 5)
    y = c.op("Mul", c.op("Sigmoid", c.bn(c.conv(x, 4, 3, 1, 1), 4)), c.draw(4, 1, 1, low=0.5))
    y = c.op("MatMul", c.op("Sigmoid", c.bn(y, 4)), c.draw(5, 6))
    proto = c.model(c.bn(c.op("Sigmoid", c.op("Flatten", y)), 120))
    for node in proto.graph.node:
        node.name = name
    folded = check(proto, "IO")
    assert len({site.name for site in folded.plan.sites}) == folded.plan.batch_norms == 3
    assert "None" not in str(folded.after)


def test_a_new_operator_without_a_name_before_it() -> None:
    c = Case()
    y = c.op("MatMul", c.bn(c.input("N", 3), 3), c.draw(3, 4))
    proto = c.model(y)
    for node in proto.graph.node:
        node.name = ""
    folded = check(proto)
    assert folded.ops() == ["MatMul", "Add"]
    assert "None" not in str(folded.after)


def test_new_names_avoid_those_that_are_there() -> None:
    c = Case()
    w = c.draw(4, 3, 1, 1, name="w")
    y = c.op("Conv", c.input("N", 3, 5, 5, name="w_bias"), w)
    check(c.model(c.op("Sigmoid", c.bn(y, 4), outputs=["w_bias_2"])))


def test_a_batch_norm_that_is_an_output_folds_into_what_makes_it() -> None:
    c = Case()
    y = c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4)
    folded = check(c.model(y, c.op("Relu", y)))
    assert folded.ops() == ["Conv", "Relu"]
    assert folded.after.graph.node[0].output[0] == y


def test_a_batch_norm_between_two_outputs_stays() -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    check(c.model(y, c.bn(y, 4)), "IO")


def test_the_same_value_twice() -> None:
    c = Case()
    y = c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4)
    check(c.model(y, y))


def test_an_input_that_is_an_output() -> None:
    c = Case()
    x = c.input("N", 3, 5, 5)
    check(c.model(x, c.conv(c.bn(x, 3), 4, 3, 1, 1)))


def test_an_identity_batch_norm_between_input_and_output() -> None:
    c = Case()
    same = {"gamma": np.ones(3), "beta": np.zeros(3), "mean": np.zeros(3), "var": np.ones(3)}
    folded = check(c.model(c.bn(c.input("N", 3), 3, epsilon=0.0, **same)))
    assert folded.ops() == ["Identity"]


def test_two_batch_norms_of_one_conv() -> None:
    """One folds, the other is rebased."""
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    folded = check(c.model(c.op("Sigmoid", c.bn(y, 4)), c.op("Tanh", c.bn(y, 4))), "SHARED-UNIT")
    assert folded.plan.folded == 1


def test_copies_that_nothing_needs_vanish() -> None:
    c = Case()
    y = c.op("Identity", c.bn(c.op("Identity", c.conv(c.op("Identity", c.input("N", 3, 5, 5)), 4, 3, 1, 1)), 4))
    assert check(c.model(y)).ops() == ["Conv"]


def test_no_nodes() -> None:
    c = Case()
    check(c.model(c.input("N", 3)))


def test_a_model_without_batch_norms_is_unchanged() -> None:
    c = Case()
    y = c.op("Relu", c.conv(c.input("N", 3, 5, 5), 4, 3, 3, 3, pads=[1, 1, 1, 1]))
    folded = check(c.model(c.op("Softmax", c.op("Flatten", c.op("GlobalAveragePool", y)))))
    assert folded.after.graph.node == folded.before.graph.node
    assert folded.after.graph.initializer == folded.before.graph.initializer


@pytest.mark.parametrize("rank", [0, 1])
def test_scalars_and_vectors(rank: int) -> None:
    c = Case()
    x = c.input(*["N"][:rank])
    y = c.op("Relu", c.op("Neg", c.op("Mul", c.op("Add", x, c.const(1.0)), c.const(3.0))))
    check(c.model(c.op("Sigmoid", c.op("Sum", y, x))))


def test_missing_and_stale_value_infos() -> None:
    """With every shape declared, or none, the same happens."""
    c = Case()
    y = c.op("Flatten", c.op("MaxPool", c.bn(c.conv(c.input("N", 3, "H", "W"), 4, 3, 3, 3), 4), kernel_shape=[2, 2]))
    proto = c.model(c.op("Softmax", y))
    declared = check(onnx.shape_inference.infer_shapes(proto))
    assert check(proto).after.graph.node == declared.after.graph.node


def test_external_readers_see_the_argument_unchanged() -> None:
    proto = documented()
    model = ir.from_proto(proto)
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    fold(proto)
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in weights.items())


REQUIRED: dict[str, dict[str, Any]] = {
    "AveragePool": {"kernel_shape": [2, 2]},
    "Cast": {"to": TensorProto.DOUBLE},
    "Concat": {"axis": 1},
    "ConcatFromSequence": {"axis": 0},
    "DepthToSpace": {"blocksize": 2},
    "Einsum": {"equation": "nchw,nchw->nchw"},
    "LRN": {"size": 3},
    "LpPool": {"kernel_shape": [2, 2]},
    "MaxPool": {"kernel_shape": [2, 2]},
    "SpaceToDepth": {"blocksize": 2},
}
SHAPE = (2, 4, 4, 6)
CONSTANTS = {
    "scalar": (),
    "channel": (4, 1, 1),
    "full": (1, 4, 4, 6),
    "columns": (6,),
    "matrix": (6, 6),
    "rows": (4, 4),
}
OPERATORS = sorted(
    s.name
    for s in onnx.defs.get_all_schemas()
    if s.domain == "" and s.min_input <= 2 and s.max_input >= 1 and not s.deprecated and s.name not in ("Dropout",)
)


def around(op: str, operands: tuple[str, ...]) -> onnx.ModelProto | None:
    """Conv → BN → operator → BN → Conv; None where ONNX has no such call."""
    c = Case(opset=21, ir_version=10)
    x = c.input(*SHAPE)
    y = [c.bn(c.conv(x, 4, 4, 1, 1), 4, gamma=gamma) for gamma in (c.mixed(4), np.ones(4))]
    inputs = [y.pop(0) if kind == "feature" else c.draw(*CONSTANTS[kind], low=0.5) for kind in operands]
    z = c.op(op, *inputs, **REQUIRED.get(op, {}))
    bare = [onnx.ValueInfoProto(name=z)]
    graph = helper.make_graph(c.nodes, "case", c.inputs, bare, c.initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", c.opset)], ir_version=10)
    try:
        found = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph.output[0].type
        shape = [d.dim_value for d in found.tensor_type.shape.dim]
        if found.tensor_type.elem_type != TensorProto.DOUBLE:
            return c.model(z, shapes={z: shape})
        if len(shape) >= 2 and shape[1] > 0:
            z = c.bn(z, shape[1], gamma=c.mixed(shape[1]))
        if len(shape) == 4:
            z = c.op("Sigmoid", c.conv(z, 2, shape[1], 1, 1))
        return c.model(z)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError):
        return None


CALLS = [
    ("feature",),
    ("feature", "feature"),
    *(("feature", k) for k in CONSTANTS),
    *((k, "feature") for k in CONSTANTS),
]


def exact(op: str) -> int:
    """Fold every call of an operator that ONNX accepts and its reference can run; how many there were."""
    count = 0
    for operands in CALLS:
        proto = around(op, operands)
        if proto is None:
            continue
        after = ir.to_proto(fold_model(ir.from_proto(proto))[0])
        feeds = draw(proto, {}, 0, {})
        try:
            before = run(proto, feeds)
        except Exception:  # the reference does not have it, or not for these types
            continue
        if all(isinstance(value, np.ndarray) for value in before) and "Random" not in op and op != "Bernoulli":
            assert_same(before, run(after, feeds))
            count += 1
    return count


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the reference divides by zero, takes roots of negatives, …
@pytest.mark.parametrize("op", OPERATORS)
def test_no_operator_makes_the_fold_fail_or_lie(op: str) -> None:
    exact(op)


def test_the_scan_reaches_most_elementwise_operators() -> None:
    for op in ("Add", "Relu", "Max", "Softmax", "MatMul", "ReduceL2"):
        assert exact(op) > 0, op
