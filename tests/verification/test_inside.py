"""Errors at every site, as part of a verdict: when asked, and by themselves when a check fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx import numpy_helper
from torch import nn

import bnfold
from bnfold.cli import app as cli
from bnfold.errors import UsageError
from bnfold.quiet import quiet
from bnfold.verification.verify import verify

X = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)


def wrong() -> onnx.ModelProto:
    """A fold with one weight that is off."""
    model = tiny.folded()
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def test_a_check_that_passes_looks_inside_only_if_asked() -> None:
    assert verify(tiny.conv_bn(), tiny.folded(), {"x": X}).sites is None
    assert verify(tiny.conv_bn(), tiny.folded(), {"x": X}).to_dict()["sites"] is None
    asked = verify(tiny.conv_bn(), tiny.folded(), {"x": X}, per_site=True)
    assert asked.passed
    assert asked.sites is not None
    [row] = [row for row in asked.sites if row.site]
    assert (row.site, row.state) == ("bn", "same")
    assert row.to_dict() in asked.to_dict()["sites"]


def test_a_check_that_fails_looks_inside_by_itself() -> None:
    failed = verify(tiny.conv_bn(), wrong(), {"x": X})
    assert not failed.passed
    assert failed.sites is not None
    assert (failed.sites[0].site, failed.sites[0].state) == ("bn", "differs")


def test_models_that_take_other_inputs_are_not_run_inside() -> None:
    other = tiny.folded()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "another"
    failed = verify(tiny.conv_bn(), other, {"x": X}, per_site=True)
    assert not failed.passed
    assert failed.sites is None


def test_networks_have_no_names_inside() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    inputs = torch.tensor(X)
    verdict = verify(module, bnfold.fold(module, inputs).model, inputs, per_site=True)
    assert verdict.passed
    assert verdict.sites == ()
    assert "sites are compared inside ONNX models only; these are compared by what they give" in verdict.notes


def test_a_number_that_is_not_finite_is_null() -> None:
    spoiled = tiny.folded()
    tensor = next(tensor for tensor in spoiled.graph.initializer if len(tensor.dims) == 4)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    verdict = verify(tiny.conv_bn(), spoiled, {"x": X})
    assert verdict.sites
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_the_command_line_lists_ten_and_all_with_v(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))]).eval()
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    with quiet():
        program = torch.onnx.export(module, (torch.tensor(X),), dynamo=True, optimize=False, verbose=False)
    onnx.save(program.model_proto, before)
    onnx.save(bnfold.fold(program.model_proto).model, after)
    arguments = ["verify", str(before), str(after), "--per-site", "--json", str(tmp_path / "report.json")]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    sites = json.loads((tmp_path / "report.json").read_text())["verification"]["sites"]
    assert len(sites) > 10
    assert f"Error at every site (the worst 10 of {len(sites)})" in text
    assert f"and {len(sites) - 10} more; -v lists all" in text
    assert cli.main([*arguments, "-v"]) == 0
    text = capsys.readouterr().out
    assert "Error at every site\n" in text
    assert "more; -v lists all" not in text


def test_convert_says_that_it_needs_a_verification(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(tiny.conv_bn(), path)
    report = bnfold.convert(path, tmp_path / "out.onnx", per_site=True).to_dict()
    assert [row["site"] for row in report["verification"]["sites"] if row["site"]] == ["bn"]
    with pytest.raises(UsageError) as refused:
        bnfold.convert(path, tmp_path / "other.onnx", per_site=True, verify="off")
    assert refused.value.what == 'per_site=True compares inside the models, and verify="off" compares nothing'
    assert refused.value.hint == "Leave one out."
