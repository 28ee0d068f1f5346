"""`--fail-on` of the contract's metrics in every command that takes it: what holds exits with 1, and so does a gap.

What a command can never measure is a wrong call, and exits with 2."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper

from bnfold.cli.app import main

X = np.random.default_rng(0).standard_normal((12, 3, 6, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 4, 12)

HOLD = ("error.ratio<1e9", "error.rel<1", "top1.delta<1", "speedup.low<1e9", "kept<1", "folded==1", "nodes_after>0")
DO_NOT = ("error.ratio>1e9", "error.rel>1e-3", "top1.delta<-0.001", "speedup.low<1e-9", "kept>0", "folded!=1")
MEASURED = {
    "convert": {"error", "top1", "speedup", "kept", "folded", "nodes_after"},
    "verify": {"error", "top1", "nodes_after"},
    "bench": {"speedup", "nodes_after"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(pooled(tiny.conv_bn()), "before.onnx")
    onnx.save(pooled(tiny.folded()), "after.onnx")
    np.savez("data.npz", x=X, y=Y)
    return tmp_path


def pooled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with its image reduced to one number per channel, as a classifier has it."""
    model.graph.node[-1].output[0] = "relu_out"
    model.graph.node.append(helper.make_node("GlobalAveragePool", ["relu_out"], ["pooled"]))
    model.graph.node.append(helper.make_node("Flatten", ["pooled"], ["y"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("N", 4)))
    return model


def call(command: str, *conditions: str) -> int:
    timing = ["--min-time", "0.05", "--threads", "1", "--runtime", "ort"]
    words = {
        "convert": ["before.onnx", "-o", "out.onnx", "--force", "--data", "data.npz", "--bench", *timing],
        "verify": ["before.onnx", "after.onnx", "--data", "data.npz"],
        "bench": ["before.onnx", "after.onnx", *timing],
    }[command]
    return main([command, *words, "--no-progress", *(word for each in conditions for word in ("--fail-on", each))])


def metric(condition: str) -> str:
    return re.split("[<>=!]", condition)[0]


def group(condition: str) -> str:
    return metric(condition).split(".")[0]


@pytest.mark.parametrize("command", MEASURED)
def test_what_does_not_hold_passes(command: str, folder: Path) -> None:
    asked = [condition for condition in DO_NOT if group(condition) in MEASURED[command]]
    assert asked
    assert call(command, *asked) == 0


@pytest.mark.parametrize("command", MEASURED)
def test_what_holds_fails_and_all_of_it_is_said(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [condition for condition in HOLD if group(condition) in MEASURED[command]]
    assert call(command, *asked) == 1
    err = capsys.readouterr().err
    assert err.startswith("error[CHECK]: ")
    for condition in asked:
        assert f"--fail-on {condition}: {metric(condition)} is " in err


@pytest.mark.parametrize("command", MEASURED)
def test_what_the_command_does_not_measure_is_refused_before_any_work(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [condition for condition in DO_NOT if group(condition) not in MEASURED[command]]
    for condition in missing:
        assert call(command, condition) == 2
        what, hint = capsys.readouterr().err.splitlines()
        assert what == f"error[USAGE]: --fail-on {condition}: {command} does not measure {metric(condition)}"
        assert hint.startswith("Measured by: bnfold ")
        assert f"bnfold {command}" not in hint
    assert (command == "convert") is (not missing)


def test_a_conversion_that_fails_one_leaves_nothing_at_the_output(folder: Path) -> None:
    assert call("convert", "kept<1") == 1
    assert not (folder / "out.onnx").exists()
    assert (folder / "out.onnx.rejected").exists()


def test_without_the_flag_that_measures_it_a_conversion_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {
        "error.ratio>4": ("quick", "error.ratio was not measured (verify does, and convert with --verify full)"),
        "error.rel>1e-5": ("off", "error.rel was not measured (verify does, and convert with --verify full)"),
        "speedup.low<0.98": ("full", "speedup.low was not measured (bench of two models does, and convert --bench)"),
        "top1.delta<-0.001": ("full", "top1.delta was not measured (--data with --metric top1 does)"),
    }
    for condition, (level, why) in said.items():
        words = ["before.onnx", "-o", "out.onnx", "--verify", level, "--no-progress", "--fail-on", condition]
        assert main(["convert", *words]) == 1
        assert capsys.readouterr().err.startswith(f"error[CHECK]: --fail-on {condition}: {why}\n")
    assert not (folder / "out.onnx").exists()
