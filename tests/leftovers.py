"""Folds that say what becomes of the BatchNorms that stay, for the tests of both folders."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices
from bnfold.planning.plan import Plan


def fold(proto: onnx.ModelProto, leftover: str) -> tuple[onnx.ModelProto, Plan]:
    """The folded model: valid, with the same interface."""
    model = ir.from_proto(proto)
    folded, plan = fold_model(model, Choices(leftover=leftover))
    after = ir.to_proto(folded)
    onnx.checker.check_model(after, full_check=True)
    assert (list(after.graph.input), list(after.graph.output)) == (list(proto.graph.input), list(proto.graph.output))
    assert plan == fold_model(model, Choices(leftover=leftover))[1]
    return after, plan


def check_settled(after: onnx.ModelProto, leftover: str) -> None:
    """A second fold changes nothing, whatever it is asked for."""
    for second in (leftover, "keep"):
        again, found = fold_model(ir.from_proto(after), Choices(leftover=second))
        assert found.folded == 0
        same = ir.to_proto(again).SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)
        assert same, f"folding again ({second}) changed the model"


def ops(proto: onnx.ModelProto) -> list[str]:
    """Operator types, in order."""
    return [node.op_type for node in proto.graph.node]
