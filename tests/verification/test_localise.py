"""Where the error of a fold comes from: by the names of the BatchNorms, the cause on top."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
import torch
from networks import drawn
from onnx import numpy_helper
from torch import nn

import bnfold
from bnfold.errors import UsageError
from bnfold.quiet import quiet
from bnfold.verification.localise import SiteError, localise

X = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)


class Stack(nn.Module):
    """Convolutions with BatchNorms behind, and one in front of a ReLU on a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 6, 6, 3, padding=1) for i in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](self.convs[0](x)).relu()
        y = y + self.convs[1](self.norms[1](y).relu())
        for conv, norm in zip(self.convs[2:], self.norms[2:], strict=True):
            y = norm(conv(y)).relu()
        return y.mean((2, 3))


@pytest.fixture(scope="module")
def models() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    torch.manual_seed(0)
    module = drawn(Stack()).eval()
    with quiet():
        program = torch.onnx.export(module, (torch.tensor(X),), dynamo=True, optimize=False, verbose=False)
    before = program.model_proto
    return before, bnfold.fold(before).model


def shifted(model: onnx.ModelProto, name: str, amount: float) -> onnx.ModelProto:
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    [tensor] = [tensor for tensor in wrong.graph.initializer if tensor.name == name]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += amount
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return wrong


def test_a_model_against_itself_has_only_rounding() -> None:
    rows = localise(tiny.conv_bn(), tiny.conv_bn(), {"x": X})
    assert {row.state for row in rows} == {"same"}
    assert all(row.gap == 0 and row.accumulated == row.before for row in rows)
    assert {row.site for row in rows} == {"bn", ""}
    assert all(row.local is not None and row.local < 1e-6 for row in rows)


def test_a_vanished_batch_norm_goes_with_the_value_it_lives_on_in() -> None:
    rows = localise(tiny.conv_bn(), tiny.folded(), {"x": X})
    [row] = [row for row in rows if row.site]
    assert (row.site, row.node, row.value, row.state) == ("bn", "conv", "conv_out", "same")
    assert row.accumulated is not None
    assert 0 < row.accumulated < 1e-6
    assert 0 < row.gap < 1e-6


def test_every_site_of_a_right_fold_is_the_same_or_in_another_unit(
    models: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    before, after = models
    rows = localise(before, after, {before.graph.input[0].name: X})
    assert {row.state for row in rows} <= {"same", "unit", "unknown"}
    assert any(row.state == "unit" for row in rows)
    assert {row.site for row in rows} - {""} == {site.name for site in bnfold.fold(before).plan.sites}
    same = [row.accumulated or 0.0 for row in rows if row.state == "same"]
    assert same == sorted(same, reverse=True)
    assert max(same) < 1e-5


def test_the_cause_of_a_wrong_fold_stands_on_top(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    before, after = models
    feeds = {before.graph.input[0].name: X}
    right = {row.value: row for row in localise(before, after, feeds)}
    for index in (0, 2, 3):
        [worst, *_] = localise(before, shifted(after, f"convs.{index}.weight", 1e-2), feeds)
        assert worst.state == "differs"
        assert worst.op == "Conv"
        assert worst.site == right[worst.value].site != ""
        assert worst.site == [row.site for row in _in_order(before, right)][{0: 0, 2: 2, 3: 3}[index]]


def _in_order(before: onnx.ModelProto, rows: dict[str, SiteError]) -> list[SiteError]:
    by_site = {row.site: row for row in rows.values() if row.site}
    names = [site.name for site in bnfold.fold(before).plan.sites]
    return [by_site[name] for name in names]


def test_models_that_share_no_name_are_refused() -> None:
    other = tiny.folded()
    for node, names in zip(other.graph.node, (("other",), ("z",)), strict=True):
        node.output[:] = names
    other.graph.node[1].input[0] = "other"
    other.graph.output[0].name = "z"
    with pytest.raises(UsageError) as refused:
        localise(tiny.conv_bn(), other, {"x": X})
    assert refused.value.what == (
        "no value has the same name in both models, so that nothing can be compared inside them"
    )
    assert refused.value.hint == "Compare the outputs alone: leave out --per-site."


def test_a_row_is_plain_data() -> None:
    row = SiteError("bn", "conv", "Conv", "y", "same", 0.0, 1e-7, 1e-7, None)
    assert row.to_dict() == {
        "site": "bn",
        "node": "conv",
        "op": "Conv",
        "value": "y",
        "state": "same",
        "gap": 0.0,
        "accumulated": 1e-7,
        "before": 1e-7,
        "local": None,
    }
