"""OpenVINO as a runtime; without it, what is said. The tests that run it are skipped where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny
from onnx import helper

from bnfold import bench
from bnfold.cli.app import main
from bnfold.errors import UnsupportedError, UsageError
from bnfold.running.openvinorunner import OpenVinoRunner
from bnfold.running.runners import make_runner

installed = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")

X = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
X.setflags(write=False)


@installed
def test_it_computes_what_onnxruntime_does() -> None:
    for model in (tiny.conv_bn(), tiny.bn_relu()):
        data = model.SerializeToString()
        ours, theirs = OpenVinoRunner(data).run({"x": X}), make_runner("ort-as-written", data).run({"x": X})
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(ours["y"], theirs["y"], rtol=1e-4, atol=1e-5)


@installed
def test_it_keeps_the_precision_of_the_model() -> None:
    """A weight of 1 + 2⁻¹² is 1 in bfloat16, which OpenVINO would compute in where the CPU can."""
    weight = np.full((512, 512), 1 + 2**-12, np.float32)
    model = tiny.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, shape=(64, 512), out_shape=(64, 512)
    )
    [got] = OpenVinoRunner(model.SerializeToString()).run({"x": np.ones((64, 512), np.float32)}).values()
    np.testing.assert_allclose(got, 512 * (1 + 2**-12), rtol=1e-5)


@installed
def test_it_declares_what_onnxruntime_declares() -> None:
    data = tiny.conv_bn().SerializeToString()
    ours, theirs = OpenVinoRunner(data), make_runner("ort", data)
    assert ours.name == "openvino"
    assert ours.input_names == ("x",)
    assert ours.inputs == theirs.inputs
    assert ours.outputs == theirs.outputs


@installed
def test_a_result_is_not_overwritten_by_the_next_run() -> None:
    runner = OpenVinoRunner(tiny.conv_bn().SerializeToString())
    first = runner.run({"x": X})["y"]
    kept = first.copy()
    runner.run({"x": X + 1})
    np.testing.assert_array_equal(first, kept)


@installed
def test_threads_are_the_callers() -> None:
    runner = OpenVinoRunner(tiny.conv_bn().SerializeToString(), threads=1)
    assert runner._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == 1


@installed
@pytest.mark.parametrize(
    ("feeds", "why"),
    [
        ({"x": np.zeros((1, 4, 6, 6), np.float32)}, "x 1×4×6×6 float32: "),
        ({}, ": it also takes x"),
    ],
)
def test_inputs_it_does_not_take_are_a_usage_error(feeds: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match="the model does not run on ") as caught:
        OpenVinoRunner(tiny.conv_bn().SerializeToString()).run(feeds)
    assert why in caught.value.what
    assert "\n" not in caught.value.what
    assert "src/" not in caught.value.what


@installed
def test_a_model_that_does_not_load_is_one_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        OpenVinoRunner(b"nonsense", label="the model after")
    assert caught.value.what.endswith(
        " does not load the model after: Unable to read the model. Please check if the model format is supported and "
        "model is correct."
    )


@installed
@pytest.mark.parametrize(
    "form", [lambda path: str(path), lambda path: onnx.load(path), lambda path: onnx_ir.load(str(path))]
)
def test_a_model_in_any_form_is_timed(tmp_path: Path, form: Callable[[Path], Any]) -> None:
    onnx.save(tiny.conv_bn(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    [row] = bench(form(tmp_path / "m.onnx"), tiny.folded(), runtimes=["openvino"], threads=1, min_time=0.05).rows
    assert row.runtime == "openvino"
    assert row.before is not None
    assert row.before.load_ms is not None


@installed
def test_it_is_no_runtime_of_a_gpu() -> None:
    with pytest.raises(UnsupportedError) as caught:
        bench(tiny.conv_bn(), runtimes=["openvino"], device="cuda")
    assert str(caught.value) == (
        "error[UNSUPPORTED]: OpenVINO runs on the CPU only\nUse --device cpu, or name other runtimes."
    )


def test_without_it_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bnfold.running.openvinorunner.importlib.util.find_spec", lambda name: None)
    said = "error[UNSUPPORTED]: OpenVINO is not installed here\npip install openvino, or name other runtimes.\n"
    onnx.save(tiny.conv_bn(), tmp_path / "m.onnx")
    for command in (["bench"], ["convert", "--bench", "-o", str(tmp_path / "out.onnx")]):
        assert main([*command, str(tmp_path / "m.onnx"), "--runtime", "ort,openvino", "--no-progress"]) == 4
        assert capsys.readouterr().err == said
    assert not (tmp_path / "out.onnx").exists()
