"""BatchNorms that stay, in other operators: which, under which names, and where they must stay what they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from leftovers import check_settled, fold, ops
from onnx import TensorProto
from onnx_case import Case, assert_same, draw, run

import bnfold
from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices
from bnfold.planning.leftover import LEFTOVERS, is_split


def check(
    proto: onnx.ModelProto, leftover: str, expected: list[str], kept: int = 1, *, settled: bool = True
) -> onnx.ModelProto:
    after, plan = fold(proto, leftover)
    assert ops(after) == expected
    assert plan.kept == kept
    if settled:
        check_settled(after, leftover)
    feeds = draw(proto, {"N": 2}, 0, {})
    assert_same(run(proto, feeds), run(after, feeds))
    return after


def dense_block() -> Case:
    """x → Conv, and what it gives is read through two BatchNorms with a ReLU behind them."""
    c = Case()
    stem = c.conv(c.input("N", 3, 8, 8), 4, 3, 3, 3, label="stem")
    grown = c.conv(c.op("Relu", c.bn(stem, 4, label="one"), label="act"), 2, 4, 1, 1, label="grow")
    both = c.op("Concat", stem, grown, axis=1, label="cat")
    last = c.conv(c.op("Relu", c.bn(both, 6, label="two"), label="act2"), 3, 6, 3, 3, label="last", pads=[1] * 4)
    c.last = last  # type: ignore[attr-defined]
    return c


def test_behind_concat_a_single_add_stays() -> None:
    """The scale is positive, so it goes through the ReLU into the next Conv."""
    c = dense_block()
    proto = c.model(c.last)  # type: ignore[attr-defined]
    before = ["Conv", "Relu", "Conv", "Concat", "Relu", "Conv"]
    after = check(proto, "affine", [*before[:1], "Add", *before[1:]])
    assert [node.name for node in after.graph.node].count("one") == 1
    check(proto, "keep", [*before[:1], "BatchNormalization", *before[1:]])
    after = check(proto, "conv", [*before[:1], "Conv", *before[1:]])
    [node] = [node for node in after.graph.node if node.name == "one"]
    shapes = {t.name: list(t.dims) for t in after.graph.initializer}
    assert [shapes[name] for name in node.input[1:]] == [[4, 1, 1, 1], [4]]
    assert [a.i for a in node.attribute] == [4]


def test_a_negative_scale_stays_with_its_shift() -> None:
    c = Case()
    y = c.op("Relu", c.bn(c.op("Sigmoid", c.input("N", 3, 8, 8)), 3, gamma=np.array([1, -1, 2]), label="bn"))
    proto = c.model(c.conv(y, 2, 3, 3, 3))
    after = check(proto, "affine", ["Sigmoid", "Mul", "Add", "Relu", "Conv"])
    assert [node.name for node in after.graph.node][1:3] == ["bn_mul", "bn"]
    check(proto, "conv", ["Sigmoid", "Conv", "Relu", "Conv"])


def test_what_only_multiplies_is_one_mul_and_a_conv_without_bias() -> None:
    c = Case()
    y = c.bn(c.op("Sigmoid", c.input("N", 3, 8)), 3, beta=np.zeros(3), mean=np.zeros(3))
    proto = c.model(c.op("Tanh", y))
    check(proto, "affine", ["Sigmoid", "Mul", "Tanh"])
    after = check(proto, "conv", ["Sigmoid", "Conv", "Tanh"])
    assert len(after.graph.node[1].input) == 2


def test_a_conv_needs_axes_to_slide_along() -> None:
    c = Case()
    proto = c.model(c.op("Tanh", c.bn(c.op("Sigmoid", c.input("N", 3)), 3)))
    check(proto, "conv", ["Sigmoid", "Mul", "Add", "Tanh"])
    assert [is_split(leftover, 2) for leftover in LEFTOVERS] == [False, True, True]
    assert [is_split(leftover, 3) for leftover in LEFTOVERS] == [False, True, False]


def test_a_dead_channel_is_a_mul_by_zero() -> None:
    c = Case()
    proto = c.model(c.op("Tanh", c.bn(c.op("Sigmoid", c.input("N", 3, 8, 8)), 3, gamma=np.array([1, 0, 2]))))
    for leftover, expected in (("affine", ["Mul", "Add"]), ("conv", ["Conv"])):
        check(proto, leftover, ["Sigmoid", *expected, "Tanh"], settled=False)


def test_elementwise_operators_of_old_opsets_are_told_how_to_broadcast() -> None:
    c = Case(opset=6, dtype=np.float32)
    proto = c.model(c.op("Tanh", c.bn(c.op("Sigmoid", c.input("N", 3, 8, 8)), 3)))
    folded, _ = fold_model(ir.from_proto(proto), Choices(leftover="affine"))
    after = ir.to_proto(folded)
    onnx.checker.check_model(after, full_check=True)
    assert ops(after) == ["Sigmoid", "Mul", "Add", "Tanh"]
    assert {a.name: a.i for a in after.graph.node[1].attribute} == {"broadcast": 1, "axis": 1}


def test_what_is_no_affine_stays_a_batch_norm() -> None:
    c = Case(opset=15)
    x = c.input("N", 3, 8, 8)
    y = c.op("BatchNormalization", x, *c.bn_params(3), outputs=["t", "m", "v"], training_mode=1)[0]
    z = c.op("BatchNormalization", c.op("Tanh", y), c.input(3, name="gamma"), *c.bn_params(3)[1:])
    for leftover in LEFTOVERS:
        after, plan = fold(c.model(c.op("Tanh", z)), leftover)
        assert ops(after).count("BatchNormalization") == 2
        assert [site.reason and site.reason.code for site in plan.sites] == ["TRAINING", "NOT-CONSTANT"]


def half(**given: Any) -> onnx.ModelProto:
    """Sigmoid → BN → Relu → Conv in float16."""
    c = Case(dtype=np.float16)
    y = c.op("Relu", c.bn(c.op("Sigmoid", c.input("N", 3, 8, 8)), 3, **given))
    return c.model(c.conv(y, 2, 3, 3, 3, pads=[1] * 4))


def test_a_small_dtype_is_not_asked_for_numbers_it_cannot_hold() -> None:
    """A tiny scale stays in a Mul, not in `t/s`; a shift beyond 65504 keeps the BatchNorm, which is wide inside."""
    assert ops(fold(half(), "affine")[0]) == ["Sigmoid", "Add", "Relu", "Conv"]
    assert ops(fold(half(gamma=np.array([1, 1e-3, 1])), "affine")[0]) == ["Sigmoid", "Mul", "Add", "Relu", "Conv"]
    huge = half(gamma=np.full(3, 1e3), mean=np.full(3, 100), var=np.full(3, 1e-3))
    for leftover in ("affine", "conv"):
        assert "BatchNormalization" in ops(fold(huge, leftover)[0])


def test_the_result_may_be_an_output_and_keeps_its_name() -> None:
    c = Case()
    y = c.bn(c.op("Sigmoid", c.input("N", 3, 8, 8)), 3, label="bn")
    proto = c.model(y)
    after = check(proto, "affine", ["Sigmoid", "Mul", "Add"])
    assert after.graph.output[0].name == y
    assert not {t.name for t in proto.graph.initializer} & {t.name for t in after.graph.initializer}


def test_bodies_of_control_flow_too() -> None:
    c = Case()
    x = c.op("Sigmoid", c.input("N", 3, 8, 8))
    first = len(c.nodes)
    then = c.body("then", [c.op("Tanh", c.bn(x, 3))], first=first)
    other = c.body("other", [c.op("Tanh", x)], first=first)
    y = c.op("If", c.input(name="which", dtype=np.bool_), then_branch=then, else_branch=other)
    proto = c.model(y, shapes={y: ("N", 3, 8, 8)})
    after, plan = fold(proto, "affine")
    assert plan.kept == 1
    [branch] = [a.g for node in after.graph.node for a in node.attribute if a.name == "then_branch"]
    assert [node.op_type for node in branch.node] == ["Mul", "Add", "Tanh"]


def test_fold_takes_it_too() -> None:
    proto = half()
    folded = bnfold.fold(proto, leftover="conv")
    assert Counter(ops(folded.model)) == {"Conv": 2, "Sigmoid": 1, "Relu": 1}
    assert Counter(ops(bnfold.fold(proto).model))["BatchNormalization"] == 1
    assert bnfold.fold(ir.from_proto(proto), leftover="conv").plan == folded.plan
    assert folded.model.graph.initializer[0].data_type == TensorProto.FLOAT16
