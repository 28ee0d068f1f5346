"""Data on the whole line: accuracy, drift and recalibration by the command line and from Python."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import reports
import tiny
from onnx import helper
from rich.console import Console

import bnfold
from bnfold.cli.app import main
from bnfold.errors import UsageError
from bnfold.reporting.conditions import failures, parse_condition
from bnfold.reporting.render import headline, print_report

X = np.random.default_rng(0).standard_normal((30, 3, 6, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 4, 30)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a classifier, its data, and the same data ten times as large."""
    monkeypatch.chdir(tmp_path)
    onnx.save(classifier(), "model.onnx")
    np.savez("data.npz", x=X, y=Y)
    np.savez("large.npz", x=10 * X + 3, y=Y)
    np.savez("unlabelled.npz", x=X)
    return tmp_path


def classifier() -> onnx.ModelProto:
    made = tiny.conv_bn()
    made.graph.node[-1].output[0] = "relu_out"
    made.graph.node.append(helper.make_node("GlobalAveragePool", ["relu_out"], ["pooled"]))
    made.graph.node.append(helper.make_node("Flatten", ["pooled"], ["y"]))
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("N", 4)))
    return made


def run(*words: str) -> tuple[int, dict[str, Any]]:
    code = main([*words, "--json", "report.json", "-q"])
    return code, json.loads(Path("report.json").read_text()) if Path("report.json").exists() else {}


def test_without_data_nothing_is_measured(folder: Path) -> None:
    code, made = run("convert", "model.onnx")
    assert code == 0
    assert (made["accuracy"], made["drift"], made["recalibration"]) == (None, None, None)


@pytest.mark.parametrize("output", ["out.onnx"])
def test_convert_measures_what_it_wrote(folder: Path, output: str) -> None:
    code, made = run("convert", "model.onnx", "-o", output, "--data", "data.npz", "--fail-on", "top1.delta<-0.001")
    assert code == 0
    found = made["accuracy"]
    assert (found["metric"], found["data"], found["n"]) == ("top1", "data.npz", 30)
    assert (found["delta"], found["agreement"], found["changed"], found["p"]) == (0, 1, 0, 1)


def test_a_network_and_its_folded_program(folder: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    arch = f"{root / 'models' / 'architectures.py'}:mlp"
    report = bnfold.convert(
        root / "models" / "mlp.pt", "mlp.safetensors", arch=arch, data=root / "models" / "digits_test.npz"
    )
    assert report.accuracy is not None
    assert (report.accuracy.n, report.accuracy.before, report.accuracy.agreement) == (500, 0.982, 1)


def test_verify_measures_a_fold_that_went_wrong_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = classifier()
    [beta] = [value for value in wrong.graph.initializer if value.name == "beta"]
    beta.CopyFrom(onnx.numpy_helper.from_array(-5 * onnx.numpy_helper.to_array(beta), "beta"))
    onnx.save(wrong, "wrong.onnx")
    code, made = run(
        "verify", "model.onnx", "wrong.onnx", "--data", "data.npz", "--fail-on", "accuracy.agreement<0.999"
    )
    assert code == 1
    assert made["accuracy"]["changed"] > 0
    assert made["accuracy"]["ties"] == 0
    assert "--fail-on accuracy.agreement<0.999: accuracy.agreement is " in capsys.readouterr().err


def test_models_that_take_other_inputs_are_not_measured_and_fail_the_check(folder: Path) -> None:
    other = classifier()
    other.graph.input[0].name = other.graph.node[0].input[0] = "image"
    onnx.save(other, "other.onnx")
    code, made = run("verify", "model.onnx", "other.onnx", "--data", "data.npz")
    assert code == 1
    assert made["accuracy"] is None


def test_drift_by_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", "model.onnx", "--data", "large.npz"]) == 0
    assert capsys.readouterr().out.startswith("1 of 1 BatchNorm drifted from large.npz\n\nDrift\n")
    code, made = run("drift", "model.onnx", "--data", "unlabelled.npz", "--fail-on", "drift.worst>100")
    assert code == 0
    assert made["drift"]["n"] == 30
    assert run("drift", "model.onnx", "--data", "large.npz", "--fail-on", "drift.drifted>0")[0] == 1
    assert sorted(path.name for path in folder.iterdir()) == [
        *("data.npz", "large.npz", "model.onnx", "report.json", "unlabelled.npz")
    ]


def test_recalibrated_models_no_longer_drift_and_verify(folder: Path) -> None:
    report = bnfold.convert(
        "model.onnx", "out.onnx", recalibrate=[10 * X[:15] + 3, 10 * X[15:] + 3], data="large.npz", leftover="keep"
    )
    assert report.passed
    assert report.recalibration is not None
    assert (report.recalibration.n, report.recalibration.passes) == (30, 1)
    assert report.accuracy is not None
    assert report.accuracy.folded_only == report.accuracy.before
    [y] = onnx_run("out.onnx", 10 * X + 3)
    weights = {name: value.astype(np.float64) for name, value in tiny.parameters(4, 0).items()}
    assert y.mean(axis=0) == pytest.approx(naive(weights, 10 * X + 3).mean(axis=0), rel=1e-4)
    assert bnfold.convert("model.onnx", "plain.onnx").recalibration is None


def naive(w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The classifier with the statistics of `x`, in float64."""
    import torch

    as_torch = {name: torch.from_numpy(value) for name, value in w.items()}
    wide = torch.from_numpy(x).double()
    h = torch.nn.functional.conv2d(wide, as_torch["weight"], as_torch["bias"], padding=1)
    norm = torch.nn.functional.batch_norm(
        h, None, None, as_torch["gamma"], as_torch["beta"], training=True, eps=tiny.EPSILON
    )
    return norm.relu().mean((2, 3)).numpy()


def onnx_run(path: str, x: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--metric", "top1"], 2, "error[USAGE]: --metric top1 was given, and no data to measure it on"),
        (["--data", "unlabelled.npz"], 2, "error[USAGE]: unlabelled.npz has no labels, which a metric needs"),
        (["--data", "none.npz"], 3, "error[UNREADABLE]: cannot read none.npz: No such file or directory"),
        (["--data", "data.npz", "--metric", "top3"], 2, "error[USAGE]: no metric is called 'top3'"),
        (["--data", "high.npz"], 2, "error[USAGE]: a label is 4, and the model has the classes 0 to 3"),
        (["--data", "nan.npz"], 3, "error[UNREADABLE]: nan.npz holds NaN or infinity in row 3 (input 'x')"),
        (["--recalibrate", "nan.npz"], 3, "error[UNREADABLE]: nan.npz holds NaN or infinity in row 3 (input 'x')"),
        (["--recalibrate", "small.npz"], 2, "error[USAGE]: input 'x' is ?x3x6x6, and the data given has 30x3x5x5"),
        (["--data", "small.npz"], 2, "error[USAGE]: input 'x' is ?x3x6x6, and the data given has 30x3x5x5"),
        (
            ["-o", "out.pt2", "--recalibrate", "data.npz"],
            2,
            "error[USAGE]: --recalibrate data.npz was given, which is for ONNX, and out.pt2 is not",
        ),
    ],
)
def test_bad_data_is_said_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, what: str
) -> None:
    np.savez("high.npz", x=X, y=Y + 1)
    np.savez("nan.npz", x=np.where(np.arange(30)[:, None, None, None] == 3, np.nan, X), y=Y)
    np.savez("small.npz", x=X[:, :, :5, :5], y=Y)
    before = sorted(path.name for path in folder.iterdir())
    assert main(["convert", "model.onnx", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == what
    assert len(err.splitlines()) == 2
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("top1.delta<-0.001", "--fail-on top1.delta<-0.001: top1.delta is -0.002"),
        ("top1.after<0.9", ""),
        ("top5.delta<-1", "--fail-on top5.delta<-1: top5.delta was not measured (--data with --metric top5 does)"),
        ("accuracy.agreement<0.999", "--fail-on accuracy.agreement<0.999: accuracy.agreement is 0.99"),
        ("accuracy.lost>2", ""),
        ("drift.worst>0.5", "--fail-on drift.worst>0.5: drift.worst is 0.7"),
        ("drift.channel>1", "--fail-on drift.channel>1: drift.channel is 1.4"),
        ("drift.drifted>1", ""),
    ],
)
def test_conditions_on_data(text: str, failure: str) -> None:
    report = reports.report(accuracy=reports.ACCURACY, drift=reports.DRIFT)
    assert failures([parse_condition(text)], report) == ((failure,) if failure else ())


def test_a_condition_on_data_that_nobody_gave_fails() -> None:
    said = "--fail-on accuracy.p<0.05: accuracy.p was not measured (--data with --metric does)"
    assert failures([parse_condition("accuracy.p<0.05")], reports.report()) == (said,)
    said = "--fail-on drift.worst>1: drift.worst was not measured (bnfold drift does)"
    assert failures([parse_condition("drift.worst>1")], reports.report()) == (said,)


def rendered(**changes: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=100, markup=False, highlight=False, emoji=False)
    print_report(reports.report(**changes), console)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def test_accuracy_as_text() -> None:
    assert """
Accuracy on 500 rows of test.npz
  metric             before    after  change
  top1              98.80 %  98.60 %  -0.002
  not recalibrated           98.40 %
  the same prediction for 99 % of the rows; 1 of the 5 others is a tie within the error allowed
  2 right before and wrong after, 1 the other way round: McNemar's exact p = 1, 95 % interval of the
  change -0.011 to +0.007
""" in rendered(accuracy=reports.ACCURACY)


def test_drift_and_recalibration_as_text() -> None:
    drifted = {"plan": None, "command": "drift", "verification": None, "benchmark": None, "drift": reports.DRIFT}
    assert headline(reports.report(**drifted)).plain == "1 of 2 BatchNorms drifted from deployed.npz"
    assert """
Drift
  BatchNorm  drift  mean  spread  worst channel
  bn1          0.7   0.6     0.3            1.4
  bn2          0.1   0.1    0.02            0.2
""" in rendered(**drifted)
    assert "  from 100 rows of deployed.npz, layer by layer in 2 passes\n" in rendered(
        recalibration=reports.RECALIBRATION
    )


def test_a_loader_that_is_no_loader(folder: Path) -> None:
    with pytest.raises(UsageError, match="recalibrate the loader is an object of type int, not a loader"):
        bnfold.convert("model.onnx", recalibrate=3)  # type: ignore[arg-type]
