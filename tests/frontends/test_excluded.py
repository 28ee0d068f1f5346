"""What the caller excludes stays as it is, bit by bit, whatever could be done to it; the rest folds around it."""

from __future__ import annotations

import copy
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx import helper, numpy_helper
from torch import nn

import bnfold
from bnfold.cli.app import main
from bnfold.errors import UsageError
from bnfold.planning.plan import Plan

X = torch.randn(2, 3, 8, 8)


class Block(nn.Module):
    """Two branches that would become one convolution, and a BatchNorm on the stream behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.two = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.bn, self.head = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        networks.drawn(self)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bn((self.one(x) + self.two(x)).relu()))


NAMES = ("one.1", "two.1", "bn")


def kept(plan: Plan) -> dict[str, str]:
    return {site.name: site.reason.code for site in plan.sites if site.reason is not None}


def test_without_exclusions_everything_folds() -> None:
    assert kept(bnfold.fold(Block(), X).plan) == {}
    assert kept(bnfold.fold(Block(), X, exclude=()).plan) == {}


@pytest.mark.parametrize("name", NAMES)
def test_an_excluded_module_stays_as_it_is(name: str) -> None:
    torch.manual_seed(3)
    block = Block()
    folded = bnfold.fold(block, X, exclude=name)
    assert kept(folded.plan) == {name: "EXCLUDED"}
    assert type(folded.model) is Block
    before, after = block.get_submodule(name), folded.model.get_submodule(name)
    assert isinstance(after, nn.BatchNorm2d)
    for key, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[key]), key
    assert bnfold.verify(block, folded.model, X)


def test_the_module_around_a_batch_norm_names_it_in_every_kind_of_model() -> None:
    block = Block()
    expected = {"one.1": "EXCLUDED"}
    assert kept(bnfold.fold(block, X, exclude=["one"]).plan) == expected
    program = networks.exported(block, X)
    folded = bnfold.fold(program, exclude=["one"])
    assert kept(folded.plan) == expected
    assert bnfold.verify(program, folded.model)


def stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}


def side_by_side() -> onnx.ModelProto:
    """Conv → the same BatchNormalization twice, which nothing behind them can absorb → sum of both Sigmoids."""
    parameters = {k: v for k, v in tiny.parameters(3, 0).items() if k in ("gamma", "beta", "mean", "var")}
    nodes = [
        node
        for i in "12"
        for node in (
            helper.make_node("BatchNormalization", ["x", "gamma", "beta", "mean", "var"], [f"b{i}"], name=f"bn{i}"),
            helper.make_node("Sigmoid", [f"b{i}"], [f"s{i}"], name=f"sigmoid{i}"),
        )
    ]
    nodes.append(helper.make_node("Mul", ["s1", "s2"], ["y"], name="product"))
    return tiny.model(nodes, parameters, shape=("N", 3, 6, 6), out_shape=("N", 3, 6, 6))


def test_in_onnx_it_keeps_its_node_and_its_parameters() -> None:
    before = tiny.conv_bn()
    folded = bnfold.fold(before, exclude=["bn"])
    assert kept(folded.plan) == {"bn": "EXCLUDED"}
    assert [node.op_type for node in folded.model.graph.node] == ["Conv", "BatchNormalization", "Relu"]
    now = stored(folded.model)
    for name, value in stored(before).items():
        np.testing.assert_array_equal(now[name], value, strict=True)


def test_its_twin_does_not_take_it_in() -> None:
    before = side_by_side()
    assert [site.status for site in bnfold.fold(before).plan.sites] == ["kept", "merged"]
    for name in ("bn1", "bn2"):
        folded = bnfold.fold(before, exclude=name)
        assert name in kept(folded.plan)
        assert name in {node.name for node in folded.model.graph.node}
        assert {code for site, code in kept(folded.plan).items() if site == name} == {"EXCLUDED"}


@pytest.mark.parametrize("leftover", ["affine", "conv"])
def test_it_is_not_written_as_something_else(leftover: str) -> None:
    folded = bnfold.fold(side_by_side(), exclude="bn2", leftover=leftover)
    assert {node.name: node.op_type for node in folded.model.graph.node}["bn2"] == "BatchNormalization"
    assert kept(folded.plan)["bn2"] == "EXCLUDED"


def test_its_neighbour_finds_an_operator_that_takes_no_other_unit() -> None:
    """Sigmoid → BN → BN: with the second excluded, nothing can absorb the first."""
    parameters = {k: v for k, v in tiny.parameters(3, 0).items() if k in ("gamma", "beta", "mean", "var")}
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"], name="sigmoid"),
        helper.make_node("BatchNormalization", ["s", "gamma", "beta", "mean", "var"], ["b"], name="first"),
        helper.make_node("BatchNormalization", ["b", "gamma", "beta", "mean", "var"], ["y"], name="second"),
    ]
    model = tiny.model(nodes, parameters, shape=("N", 3, 6, 6), out_shape=("N", 3, 6, 6))
    assert kept(bnfold.fold(model, exclude="second").plan) == {"first": "NONLINEAR", "second": "EXCLUDED"}


@pytest.mark.parametrize("kind", ["module", "program", "onnx"])
def test_a_name_that_means_nothing_is_refused(kind: str) -> None:
    block = Block()
    model = {"module": block, "program": networks.exported(block, X), "onnx": tiny.conv_bn()}[kind]
    state = copy.deepcopy(block.state_dict())
    with pytest.raises(UsageError, match="no BatchNorm is called 'bn3', and no module with one"):
        bnfold.fold(model, X if kind == "module" else None, exclude="bn3")
    assert all(torch.equal(value, state[key]) for key, value in block.state_dict().items())


def test_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(side_by_side(), "model.onnx")
    assert main(["convert", "model.onnx", "--exclude", "bn1", "--exclude", "bn?"]) == 0
    assert "EXCLUDED: it was excluded by the caller" in capsys.readouterr().out
    assert main(["inspect", "model.onnx", "--exclude", "bm1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "Did you mean bn1? See them all: bnfold inspect -v."
