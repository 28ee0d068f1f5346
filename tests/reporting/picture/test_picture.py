from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny
from onnx import TensorProto, helper

from bnfold.errors import UnsupportedError
from bnfold.frontends.onnx import fold_model
from bnfold.planning.plan import Plan, Site
from bnfold.reporting.picture.drawn import drawn, view
from bnfold.reporting.picture.picture import Picture, draw
from bnfold.reporting.picture.views import Operator, View
from bnfold.running.subjects import open_subjects


def picture_of(before: onnx.ModelProto, after: onnx.ModelProto | None = None, plan: Plan | None = None) -> Picture:
    found = drawn(ir.from_proto(before), None if after is None else ir.from_proto(after), plan)
    assert found is not None
    return found


def statuses(nodes: Any) -> dict[str, str]:
    return {node.operator.name: node.status for node in nodes}


def test_a_model_alone_is_as_it_is() -> None:
    found = picture_of(tiny.conv_bn())
    assert statuses(found.before) == {
        "input x": "same",
        "conv": "same",
        "bn": "same",
        "relu": "same",
        "output y": "same",
    }
    assert found.after is None
    assert [weight.changed for weight in found.weights] == [False]


def test_a_model_beside_itself_has_not_changed() -> None:
    found = picture_of(tiny.conv_bn(), tiny.conv_bn())
    assert set(statuses(found.before).values()) == {"same"}
    assert found.after is not None
    assert set(statuses(found.after).values()) == {"same"}
    assert (found.weights[0].moved, found.weights[0].bias) == (0.0, "same")
    assert found.to_dict()["weights"][0]["after"] == "same"


def test_a_fold_shows_the_fate_of_its_sites_and_whose_weights_changed() -> None:
    folded, plan = fold_model(ir.from_proto(tiny.conv_bn()))
    found = drawn(ir.from_proto(tiny.conv_bn()), folded, plan)
    assert found is not None
    assert found.after is not None
    assert statuses(found.before)["bn"] == "folded"
    assert statuses(found.before)["conv"] == "changed"
    assert statuses(found.after) == {"input x": "same", "conv": "changed", "relu": "same", "output y": "same"}


def test_without_a_plan_a_batch_norm_is_gone() -> None:
    found = picture_of(tiny.conv_bn(), tiny.folded())
    assert statuses(found.before)["bn"] == "gone"
    assert statuses(found.before)["conv"] == "changed"


def test_how_far_weights_moved_is_part_of_the_largest() -> None:
    [weight] = picture_of(tiny.conv_bn(), tiny.folded()).weights
    numbers = tiny.parameters(4, 0)
    s = numbers["gamma"].astype(np.float64) / np.sqrt(numbers["var"].astype(np.float64) + tiny.EPSILON)
    largest = np.abs(numbers["weight"]).max(axis=(1, 2, 3))
    assert weight.moved == pytest.approx((largest * np.abs(s - 1)).max() / largest.max(), rel=1e-5)
    assert weight.factor == pytest.approx((s.min(), s.max()), rel=1e-5)
    assert weight.before is not None
    assert weight.before.shape == (4, 3, 3, 3)
    assert weight.before.quantiles == pytest.approx(np.quantile(largest, (0, 0.25, 0.5, 0.75, 1)))
    assert weight.before.profile == pytest.approx(largest)
    assert weight.bias == "changed"


def test_an_operator_of_another_name_is_the_same_by_its_result() -> None:
    renamed = tiny.folded()
    renamed.graph.node[0].name = "fused"
    found = picture_of(tiny.conv_bn(), renamed)
    assert found.after is not None
    by_name = {node.operator.name: node for node in found.after}
    assert (by_name["fused"].was, by_name["fused"].status) == ("conv", "changed")
    assert by_name["fused"].to_dict()["was"] == "conv"


def test_an_operator_of_another_type_is_another() -> None:
    one = View((Operator("a", "Conv", value="v"),))
    two = View((Operator("b", "Gemm", value="v"),))
    found = draw(one, two, None)
    assert found.after is not None
    assert (found.before[0].status, found.after[0].status) == ("gone", "new")


def test_a_site_that_stays_is_kept_on_both_sides() -> None:
    _, plan = fold_model(ir.from_proto(tiny.bn_relu()))
    found = picture_of(tiny.bn_relu(), tiny.bn_relu(), plan)
    assert found.after is not None
    assert statuses(found.before)["bn"] == statuses(found.after)["bn"] == "kept"


def test_the_json_names_every_node_and_whom_it_reads() -> None:
    made = picture_of(tiny.conv_bn()).to_dict()
    assert made["before"][1] == {"name": "conv", "op": "Conv", "status": "same", "reads": [0]}
    assert made["before"][0] == {"name": "input x", "op": "Input", "status": "same", "shape": "N×3×6×6"}
    json.dumps(made, allow_nan=False)


def test_weights_that_are_no_numbers_do_not_break_the_json() -> None:
    before, after = tiny.conv_bn(), tiny.conv_bn()
    weight = next(each for each in after.graph.initializer if each.name == "weight")
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0, 0, 0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "weight"))
    found = picture_of(before, after)
    assert found.weights[0].changed
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_module_shows_no_graph() -> None:
    torch = pytest.importorskip("torch")
    assert drawn(torch.nn.Linear(2, 2), None) is None


def test_networks_that_are_compared_are_drawn_as_torch_exports_them() -> None:
    import torch
    from networks import conv_bn

    import bnfold

    x = torch.randn(2, 3, 6, 6)
    module = conv_bn()
    with ExitStack() as stack:
        before, after = open_subjects((module, bnfold.fold(module, x).model), stack, x, (), 0)
    found = drawn(before, after)
    assert found is not None
    assert found.after is not None
    assert statuses(found.before) == {
        "input input": "same",
        "0": "changed",
        "1": "gone",
        "relu": "same",
        "output": "same",
    }
    assert [node.operator.op for node in found.after] == ["Input", "conv2d", "relu", "Output"]
    alone = drawn(before, None)
    assert alone is not None
    assert len(alone.before) == 5
    assert len(before.network.traces) == 1  # type: ignore[union-attr]


def test_proof_and_picture_share_one_export(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from networks import conv_bn

    from bnfold.running import traces
    from bnfold.verification.verify import verify

    exported = []
    export = traces.export_call
    monkeypatch.setattr(traces, "export_call", lambda *args: exported.append(args) or export(*args))
    with ExitStack() as stack:
        pair = open_subjects((conv_bn(), conv_bn()), stack, torch.randn(2, 3, 6, 6), (), 0)
    assert verify(*pair, torch.randn(2, 3, 6, 6)).proved
    assert drawn(*pair) is not None
    assert len(exported) == 2


def test_a_network_that_cannot_be_exported_says_why() -> None:
    import torch

    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with ExitStack() as stack:
        (subject,) = open_subjects((Branching().eval(),), stack, torch.ones(2, 3), (), 0)
    for _ in range(2):  # also where it was tried before
        with pytest.raises(UnsupportedError, match="cannot export the model before: "):
            drawn(subject, None)


def test_an_exported_program_is_drawn_with_its_modules() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    program = torch.export.export(net, (torch.zeros(1, 3, 6, 6),))
    found = view(program)
    assert found is not None
    drawn_ops = [(op.name, op.op, op.reads) for op in found.operators]
    assert drawn_ops[:3] == [("input input", "Input", ()), ("0", "conv2d", (0,)), ("1", "BatchNormalization", (1,))]
    assert found.operators[1].path == ("0",)
    assert found.operators[1].shape == "1×4×4×4"
    weight = found.operators[1].weight
    assert weight is not None
    assert weight.read().shape == (4, 3, 3, 3)
    assert weight.bias is not None


def control_flow() -> onnx.ModelProto:
    """An If whose branches hold a Conv each."""

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("Conv", ["x", f"{name}.w"], [f"{name}.y"], name=f"{name}.conv")
        out = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        weight = onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), f"{name}.w")
        return helper.make_graph([node], name, [], [out], [weight])

    nodes = [
        helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=branch("yes"), else_branch=branch("no")),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 6)),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, ()),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_bodies_of_control_flow_are_drawn_in_their_operator() -> None:
    found = view(ir.from_proto(control_flow()))
    assert found is not None
    ops = {op.name: op for op in found.operators}
    assert ops["yes.conv"].path[:1] == ("choice",)
    assert {found.operators[at].name for at in ops["choice"].reads} == {"input flag", "yes.conv", "no.conv"}
    assert found.operators[ops["yes.conv"].reads[0]].name == "input x"


def test_constants_are_not_drawn() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], name="c", value=onnx.numpy_helper.from_array(np.ones(3, np.float32))),
        helper.make_node("Neg", ["c"], ["d"], name="d"),
        helper.make_node("Add", ["x", "d"], ["y"], name="add"),
    ]
    found = view(ir.from_proto(tiny.model(nodes, {}, shape=(1, 3), out_shape=(1, 3))))
    assert found is not None
    assert [op.name for op in found.operators] == ["input x", "add", "output y"]


def test_sites_of_the_plan_are_names_of_the_picture(tmp_path: Any) -> None:
    import pagecases

    run = pagecases.run_of("wide", str(tmp_path))
    names = {node["name"] for node in run["picture"]["before"]}
    assert {site["name"] for site in run["sites"]} <= names
    assert all(
        Site(**{k: site[k] for k in ("name", "op", "status")}).status == "folded" or site["reason"]
        for site in run["sites"]
    )
