"""Bodies of control flow, local functions and unknown operators: boundaries, with graphs of their own inside."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_case import Case, check, codes, fold, run


def bn_head(c: Case, x: str, channels: int = 4) -> str:
    return c.bn(c.op("Gemm", x, c.draw(channels, 4), c.draw(4)), 4, gamma=c.mixed(4))


def branches(c: Case, x: str, y: str | None = None) -> str:
    """If: Gemm → BN of one value, or Gemm of another."""
    cond, first = c.input(name="cond", dtype=bool), len(c.nodes)
    then = c.body("then", [bn_head(c, x)], first=first)
    other = c.body("else", [c.op("Gemm", y or x, c.draw(4, 4))], first=first)
    return c.op("If", cond, then_branch=then, else_branch=other)


@pytest.mark.parametrize("cond", [True, False])
def test_a_captured_value_keeps_its_unit_and_the_inside_folds(cond: bool) -> None:
    c = Case()
    x = c.bn(c.op("Sigmoid", c.input("N", 4)), 4)
    y = branches(c, x)
    folded = check(c.model(y, shapes={y: ("N", 4)}), "BOUNDARY", values={"cond": cond})
    assert folded.plan.folded == 1
    assert "BatchNormalization" not in str(folded.after.graph.node[-1])


def test_a_captured_value_behind_a_conv_folds_backwards() -> None:
    c = Case()
    x = c.bn(c.op("Gemm", c.input("N", 4), c.draw(4, 4)), 4)
    y = branches(c, x)
    for cond in (True, False):
        check(c.model(y, shapes={y: ("N", 4)}), values={"cond": cond})


def test_a_value_captured_by_a_nested_body_keeps_its_unit() -> None:
    c = Case()
    x = c.bn(c.op("Sigmoid", c.input("N", 4)), 4)
    cond, first = c.input(name="cond", dtype=bool), len(c.nodes)
    inner = [c.body("in", [bn_head(c, x)], first=first), c.body("in2", [c.op("Relu", x)], first=first)]
    z = c.op("If", cond, then_branch=inner[0], else_branch=inner[1])
    then = c.body("then", [z], first=first)
    other = c.body("else", [c.op("Neg", x)], first=first)
    y = c.op("If", cond, then_branch=then, else_branch=other)
    folded = check(c.model(y, shapes={y: ("N", 4)}), "BOUNDARY", values={"cond": True})
    assert folded.plan.folded == 1


def test_a_weight_that_two_branches_share_stays() -> None:
    c = Case()
    x, w = c.input("N", 4), c.draw(4, 4)
    cond, first = c.input(name="cond", dtype=bool), len(c.nodes)
    then = c.body("then", [c.op("Sigmoid", c.bn(c.op("Gemm", x, w), 4))], first=first)
    other = c.body("else", [c.op("Gemm", x, w)], first=first)
    y = c.op("If", cond, then_branch=then, else_branch=other)
    for value in (True, False):
        check(c.model(y, shapes={y: ("N", 4)}), "SHARED-WEIGHT", duplicate="never", values={"cond": value})
        check(c.model(y, shapes={y: ("N", 4)}), values={"cond": value})  # a copy for the one that needs another unit


def test_a_new_weight_of_a_body_hides_no_value_outside() -> None:
    """The body's bias would be called `w_bias`, and so is a value of the main graph that the body does not read."""
    c = Case()
    x = c.input("N", 4)
    outside = c.op("Relu", x, outputs=["w_bias"])
    cond, first = c.input(name="cond", dtype=bool), len(c.nodes)
    w = c.draw(4, 4, name="w")
    then = c.body("then", [c.bn(c.op("Gemm", x, w), 4)], first=first)
    then.initializer.append(c.initializers.pop([t.name for t in c.initializers].index("w")))
    other = c.body("else", [c.op("Gemm", x, c.draw(4, 4))], first=first)
    y = c.op("If", cond, then_branch=then, else_branch=other)
    for value in (True, False):
        check(c.model(y, outside, shapes={y: ("N", 4)}), values={"cond": value})


@pytest.mark.parametrize("inside", [True, False])
def test_loop_bodies(inside: bool) -> None:
    """State that goes round is rigid; what lies between it folds inside."""
    c = Case()
    x = c.bn(c.op("Sigmoid", c.input("N", 4)), 4) if not inside else c.input("N", 4)
    first = len(c.nodes)
    kind = TensorProto.DOUBLE
    y = bn_head(c, "state") if inside else c.op("Mul", "state", c.const(0.5))
    going = c.op("Identity", "going")
    body = c.body(
        "body",
        [helper.make_tensor_value_info(going, TensorProto.BOOL, ()), y],
        inputs=[
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("state", kind, ("N", 4)),
        ],
        first=first,
    )
    z = c.op("Loop", c.const(np.array(3)), c.const(np.array(True)), x, body=body)
    check(c.model(z, shapes={z: ("N", 4)}), *([] if inside else ["BOUNDARY"]))


def test_a_batch_norm_whose_state_goes_round_stays() -> None:
    c = Case()
    x, first = c.input("N", 4), 0
    y = c.bn("state", 4)
    going = c.op("Identity", "going")
    body = c.body(
        "body",
        [helper.make_tensor_value_info(going, TensorProto.BOOL, ()), y],
        inputs=[
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("state", TensorProto.DOUBLE, ("N", 4)),
        ],
        first=first,
    )
    z = c.op("Loop", c.const(np.array(3)), c.const(np.array(True)), x, body=body)
    check(c.model(z, shapes={z: ("N", 4)}), "IO")


def test_scan_bodies() -> None:
    c = Case()
    x = c.input(5, 4)
    row = c.op("Unsqueeze", "row", c.ints(0))
    y = c.op("Add", "state", c.op("Squeeze", bn_head(c, row), c.ints(0)))
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        c.nodes,
        "body",
        [info("state", TensorProto.DOUBLE, (4,)), info("row", TensorProto.DOUBLE, (4,))],
        [info(y, TensorProto.DOUBLE, (4,))],
        value_info=[info(name, TensorProto.DOUBLE, (1, 4)) for n in c.nodes[:3] for name in n.output],
    )
    c.nodes = []
    z = c.op("Scan", c.const(np.zeros(4)), x, body=body, num_scan_inputs=1)
    check(c.model(z, shapes={z: (4,)}))


def test_local_functions_are_inlined() -> None:
    """One site per call: each call gets weights of its own."""
    c = Case(domains={"my": 1})
    inner = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], name="bn"),
    ]
    imports = [helper.make_opsetid("", c.opset)]
    c.functions.append(helper.make_function("my", "Block", ["x", "w", "g", "b", "m", "v"], ["y"], inner, imports))
    x = c.input("N", 4, 5)
    for _ in range(2):
        x = c.op("Block", x, c.draw(4, 4, 1), *c.bn_params(4), domain="my")
    folded = check(c.model(x, shapes={x: ("N", 4, 5)}))
    assert folded.ops() == ["Conv", "Conv"]
    assert len({site.name for site in folded.plan.sites}) == 2


def test_a_function_that_calls_a_function() -> None:
    c = Case(domains={"my": 1})
    imports = [helper.make_opsetid("", c.opset), helper.make_opsetid("my", 1)]
    norm = [helper.make_node("BatchNormalization", ["x", "p", "p", "p", "p"], ["y"])]
    block = [helper.make_node("Gemm", ["x", "w"], ["c"]), helper.make_node("Norm", ["c", "p"], ["y"], domain="my")]
    c.functions.append(helper.make_function("my", "Norm", ["x", "p"], ["y"], norm, imports))
    c.functions.append(helper.make_function("my", "Block", ["x", "w", "p"], ["y"], block, imports))
    y = c.op("Block", c.input("N", 4), c.draw(4, 4), c.const(np.arange(1, 5.0)), domain="my")
    assert check(c.model(y, shapes={y: ("N", 4)})).ops() == ["Gemm"]


def test_an_unknown_operator_is_a_boundary_on_both_sides() -> None:
    c = Case(domains={"my": 1}, dtype=np.float32)
    x = c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4)
    y = c.op("Warp", x, domain="my")
    y = c.op("Sigmoid", c.bn(y, 4))
    proto = c.model(y, shapes={y: ("N", 4, 5, 5)})
    folded = fold(proto)
    assert codes(folded.plan) == ("BOUNDARY",)
    assert folded.ops() == ["Conv", "Warp", "BatchNormalization", "Sigmoid"]


def test_what_an_unknown_operator_writes_may_be_declared() -> None:
    c = Case(domains={"my": 1}, dtype=np.float32)
    y = c.op("Warp", c.input("N", 3, 5, 5), domain="my", outputs=["warped"])
    y = c.bn(c.conv(y, 4, 3, 3, 3), 4)
    proto = c.model(y, shapes={y: ("N", 4, 3, 3)})
    assert codes(fold(proto).plan) == ("BOUNDARY",)
    proto.graph.value_info.append(helper.make_tensor_value_info("warped", TensorProto.FLOAT, ("N", 3, 5, 5)))
    assert fold(proto).plan.folded == 1


@pytest.mark.parametrize("op", ["BatchNormalization", "Identity", "Conv", "Add", "Relu", "Split", "Pad"])
def test_a_namesake_from_another_domain_is_unknown(op: str) -> None:
    c = Case(domains={"my": 1})
    x = c.op("Sigmoid", c.input("N", 4, 5, 5))
    y = c.op(op, x, c.draw(4), c.draw(4), c.draw(4), c.draw(4), domain="my")
    y = c.op("Sigmoid", c.bn(y, 4))
    folded = fold(c.model(y, shapes={y: ("N", 4, 5, 5)}))
    assert folded.ops() == ["Sigmoid", op, "BatchNormalization", "Sigmoid"]
    assert folded.plan.batch_norms == 1


def test_sequences_and_optionals_are_boundaries() -> None:
    c = Case()
    y = c.bn(c.op("Sigmoid", c.input("N", 4)), 4)
    s = c.op("SequenceConstruct", y, y)
    z = c.op("SequenceAt", s, c.const(np.array(1)))
    assert codes(fold(c.model(z, shapes={z: ("N", 4)})).plan) == ("NONLINEAR",)
    c = Case()
    kind = helper.make_tensor_type_proto(TensorProto.DOUBLE, ["N", 4])
    empty = c.op("Optional", type=kind)
    has = c.op("OptionalHasElement", empty)
    y = c.bn(c.op("Gemm", c.input("N", 3), c.draw(3, 4)), 4)
    check(c.model(y, has, **{has: TensorProto.BOOL}))


def test_control_flow_without_batch_norms() -> None:
    c = Case()
    x = c.input("N", 4)
    cond, first = c.input(name="cond", dtype=bool), len(c.nodes)
    then = c.body("then", [c.op("Relu", x)], first=first)
    other = c.body("else", [c.op("Neg", x)], first=first)
    y = c.op("If", cond, then_branch=then, else_branch=other)
    folded = check(c.model(y, shapes={y: ("N", 4)}), values={"cond": True})
    assert folded.ops() == ["If"]
    assert run(folded.after, {"x": np.ones((1, 4)), "cond": np.array(False)})[0].shape == (1, 4)
