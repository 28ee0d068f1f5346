"""The whole line on small models: what is written is what was checked, and nothing else is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny

import bnfold.frontends.onnx as frontend
from bnfold.errors import BnfoldError, OutputError, UnreadableError, UsageError
from bnfold.pipeline import line as pipeline
from bnfold.pipeline.line import convert, default_output, inspect

FOR_ONNX = ", which is for ONNX, and "
QUICK = {"bench": True, "min_time": 0.05, "threads": 1}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(tiny.conv_bn(), path)
    return path


@pytest.fixture
def wrong_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the folder forget half a percent of one weight."""
    right = frontend.fold_model

    def wrong(model: onnx_ir.Model, *choices: Any, **how: Any) -> Any:
        folded, plan = right(model, *choices, **how)
        weight = folded.graph.initializers["weight"]
        array = weight.const_value.numpy().copy()
        array[0, 0, 1, 1] *= 1.005
        weight.const_value = onnx_ir.Tensor(array, name="weight")
        return folded, plan

    monkeypatch.setattr(frontend, "fold_model", wrong)


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    assert [path.name for path in tmp_path.rglob(".*")] == []


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_an_onnx_model_is_folded_checked_and_written(model: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    report = convert(model)
    target = tmp_path / "model.folded.onnx"
    assert report.passed
    assert report.output is not None
    assert report.output.path == str(target)
    assert files(tmp_path) == before | {"model.folded.onnx": report.output.sha256}
    assert report.source.sha256 == before["model.onnx"]
    assert report.counts() == {
        "batch_norms": 1,
        "folded": 1,
        "merged": 0,
        "kept": 0,
        "affines": 0,
        "affines_folded": 0,
        "nodes_before": 3,
        "nodes_after": 2,
        "bytes_before": model.stat().st_size,
        "bytes_after": target.stat().st_size,
    }
    assert [node.op_type for node in onnx.load(target).graph.node] == ["Conv", "Relu"]
    onnx.checker.check_model(onnx.load(target), full_check=True)
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_check_is_of_the_level_that_was_reached(model: Path, tmp_path: Path) -> None:
    for level, reached in (("full", "full"), ("quick", "quick")):
        report = convert(model, tmp_path / f"{level}.onnx", verify=level)
        assert report.verification is not None
        assert (report.verification.level, report.verification.inputs) == (reached, 4)
        assert 0 < report.verification.outputs[0].rel < 1e-6
    assert convert(model, tmp_path / "off.onnx", verify="off").verification is None


def test_what_is_checked_is_the_file_as_written(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    real = pipeline.verified

    def spy(report: Any, before: Any, after: Any, *rest: Any) -> Any:
        seen.update(before=before, after=after, sha256=hashlib.sha256(Path(after).read_bytes()).hexdigest())
        assert not default_output(model).exists()
        return real(report, before, after, *rest)

    monkeypatch.setattr(pipeline, "verified", spy)
    report = convert(model)
    assert report.output is not None
    assert seen["before"] == model
    assert seen["sha256"] == report.output.sha256


def test_a_wrong_fold_never_gets_the_outputs_name(model: Path, tmp_path: Path, wrong_fold: None) -> None:
    before = files(tmp_path)
    report = convert(model)
    assert not report.passed
    assert report.output is None
    assert report.rejected == str(tmp_path / "model.folded.onnx.rejected")
    assert set(files(tmp_path)) == {*before, "model.folded.onnx.rejected"}
    onnx.checker.check_model(onnx.load(report.rejected))
    assert report.verification is not None
    assert "the largest difference is" in report.verification.failures[0]


def test_a_wrong_fold_leaves_an_existing_output_as_it_was(model: Path, tmp_path: Path, wrong_fold: None) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"precious")
    report = convert(model, target, force=True)
    assert not report.passed
    assert target.read_bytes() == b"precious"
    assert (tmp_path / "out.onnx.rejected").exists()


def test_a_wrong_fold_is_written_if_nobody_looks(model: Path, wrong_fold: None) -> None:
    assert convert(model, verify="off").passed
    assert default_output(model).exists()


def test_a_wrong_fold_with_external_data_is_kept_whole(model: Path, tmp_path: Path, wrong_fold: None) -> None:
    report = convert(model, external_data="always")
    assert report.rejected is not None
    assert pipeline.verify(report.rejected, report.rejected).passed
    assert not (tmp_path / "model.folded.onnx").exists()
    assert len(list(tmp_path.glob("model.folded.onnx*"))) == 2


def test_a_wrong_fold_is_not_timed(model: Path, wrong_fold: None) -> None:
    assert convert(model, **QUICK).benchmark is None


def test_external_data_is_counted_and_checked(model: Path, tmp_path: Path) -> None:
    report = convert(model, external_data="always")
    [data] = tmp_path.glob("model.folded.onnx.*.data")
    assert f"the weights are in a file of their own beside the model, {data.name}" in report.notes
    sizes = [path.stat().st_size for path in (tmp_path / "model.folded.onnx", data)]
    assert report.bytes_after == sum(sizes)
    assert sizes[1] > 400
    assert pipeline.verify(model, tmp_path / "model.folded.onnx").passed


def test_a_condition_that_fails_rejects_the_model(model: Path, tmp_path: Path) -> None:
    report = convert(model, fail_on=["folded>0", "kept>0", "speedup.low<0"])
    assert report.failures == (
        "--fail-on folded>0: folded is 1",
        "--fail-on speedup.low<0: speedup.low was not measured (bench of two models does, and convert --bench)",
    )
    assert report.rejected == str(tmp_path / "model.folded.onnx.rejected")
    assert not (tmp_path / "model.folded.onnx").exists()


def test_conditions_that_hold_pass(model: Path) -> None:
    assert convert(model, fail_on=["kept>0", "error.rel>1e-5", "speedup.low<0"], **QUICK).passed


def test_both_models_are_timed_when_asked(model: Path) -> None:
    report = convert(model, runtimes=["ort-as-written"], **QUICK)
    assert report.benchmark is not None
    (row,) = report.benchmark.rows
    assert (row.runtime, row.threads) == ("ort-as-written", 1)
    assert row.speedup is not None


def test_a_checkpoint_goes_all_the_way(tmp_path: Path) -> None:
    import torch

    source = tmp_path / "net.py"
    source.write_text(
        "from torch import nn\n"
        "def net(width=4):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())\n"
    )
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU())
    torch.nn.init.uniform_(net[1].running_var, 0.5, 2)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    report = convert(
        tmp_path / "net.pt",
        tmp_path / "out.onnx",
        arch=f"{source}:net",
        arch_args={"width": "6"},
        inputs=["1x3x8x8"],
        fail_on=["kept>0"],
    )
    assert report.passed
    assert report.source.format == "state-dict"
    assert report.counts()["folded"] == 1
    assert report.bytes_before is not None
    assert report.notes[0] == "state dict: 7 matched, 0 missing, 0 unexpected"
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        expected = net.eval()(x).numpy()
    from bnfold.running.runners import make_runner

    got = make_runner("ort-as-written", str(tmp_path / "out.onnx"))
    np.testing.assert_allclose(got.run({got.input_names[0]: x.numpy()}).popitem()[1], expected, rtol=1e-4, atol=1e-6)
    planned = inspect(tmp_path / "net.pt", arch=f"{source}:net", arch_args={"width": "6"}, inputs=["1x3x8x8"])
    assert planned.plan == report.plan
    assert planned.bytes_before == report.bytes_before


def test_a_transformer_gives_up_the_scales_and_biases_of_its_norms(tmp_path: Path) -> None:
    import torch

    source = tmp_path / "net.py"
    source.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True, norm_first=True)\n"
    )
    torch.manual_seed(0)
    net = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True, norm_first=True)
    for norm in (net.norm1, net.norm2):
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.normal_(norm.bias)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    words = {"arch": f"{source}:net", "inputs": ["1x5x16"]}
    report = convert(tmp_path / "net.pt", tmp_path / "out.onnx", norm_affine=True, **words)
    assert report.passed
    assert report.plan is not None
    assert [(s.op, s.status) for s in report.plan.affines if "Norm" in s.op] == [("LayerNormalization", "folded")] * 2
    assert report.plan == inspect(tmp_path / "net.pt", norm_affine=True, **words).plan
    norms = [node for node in onnx.load(tmp_path / "out.onnx").graph.node if node.op_type == "LayerNormalization"]
    assert [len(node.input) for node in norms] == [2, 2]


def test_inspect_writes_nothing(model: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    report = inspect(model)
    assert files(tmp_path) == before
    assert report.command == "inspect"
    assert report.plan is not None
    assert report.plan.folded == 1
    assert (report.output, report.operators_after, report.verification, report.benchmark) == (None, None, None, None)
    assert not inspect(model, fail_on=["folded>0"]).passed


def test_folding_twice_finds_nothing(model: Path, tmp_path: Path) -> None:
    convert(model)
    again = convert(tmp_path / "model.folded.onnx", tmp_path / "again.onnx")
    assert again.counts()["batch_norms"] == 0
    assert again.counts()["nodes_after"] == again.counts()["nodes_before"]


def test_two_files_are_verified(model: Path, tmp_path: Path) -> None:
    onnx.save(tiny.folded(), tmp_path / "right.onnx")
    onnx.save(tiny.folded(off_by=0.1), tmp_path / "wrong.onnx")
    right = pipeline.verify(model, tmp_path / "right.onnx")
    wrong = pipeline.verify(model, tmp_path / "wrong.onnx")
    assert right.passed
    assert not wrong.passed
    assert right.command == "verify"
    assert right.output is not None
    assert right.output.path == str(tmp_path / "right.onnx")
    assert (right.counts()["nodes_before"], right.counts()["nodes_after"]) == (3, 2)
    assert pipeline.verify(model, tmp_path / "wrong.onnx", rtol=1.0).passed
    assert not pipeline.verify(model, tmp_path / "right.onnx", fail_on=["error.rel>0"]).passed


def test_input_data_under_another_name_feeds_the_only_input(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2] / "models"
    note = "the input 'image' is fed the array 'x'; 'y' is not used"
    data = {"x": np.load(root / "digits_test.npz")["x"][:4], "y": np.zeros(4, dtype=np.int64)}
    np.savez(tmp_path / "digits.npz", **data)
    report = convert(
        root / "mlp.pt",
        tmp_path / "mlp.onnx",
        arch=f"{root / 'architectures.py'}:mlp",
        input_data=tmp_path / "digits.npz",
    )
    assert report.passed
    assert report.notes.count(note) == 1
    assert pipeline.verify(tmp_path / "mlp.onnx", tmp_path / "mlp.onnx", input_data=tmp_path / "digits.npz").notes == (
        note,
    )


def test_input_data_is_used(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((7, 3, 6, 6)).astype(np.float32))
    report = convert(model, input_data=tmp_path / "x.npz", **QUICK)
    assert report.verification is not None
    assert report.verification.inputs == 1
    assert report.benchmark is not None
    assert report.benchmark.batch == 7
    array = np.zeros((2, 3, 6, 6), np.float32)
    assert pipeline.verify(model, model, input_data={"x": array}).passed
    assert pipeline.verify(model, model, input_data=array).passed


def test_two_files_are_timed(model: Path, tmp_path: Path) -> None:
    onnx.save(tiny.folded(), tmp_path / "after.onnx")
    report = pipeline.bench(model, tmp_path / "after.onnx", min_time=0.05, threads=1, runtimes=["ort"])
    assert report.benchmark is not None
    assert report.benchmark.rows[0].speedup is not None
    alone = pipeline.bench(model, min_time=0.05, threads=1, runtimes=["ort"])
    assert alone.output is None
    assert alone.counts()["nodes_after"] is None
    assert not pipeline.bench(model, min_time=0.05, threads=1, fail_on=["speedup.low<1"]).passed


def test_an_input_shape_with_its_batch_is_what_is_timed(model: Path) -> None:
    report = pipeline.bench(model, inputs=["5x3x6x6"], min_time=0.05, threads=1, runtimes=["ort"])
    assert report.benchmark is not None
    assert report.benchmark.batch == 5


def test_progress_names_the_stages_in_order(model: Path) -> None:
    stages: list[str] = []
    convert(model, progress=lambda stage, done: stages.append(stage), **QUICK)
    assert list(dict.fromkeys(stages)) == ["loading", "folding", "writing", "verifying", "timing"]


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ({"verify": "fulll"}, UsageError, "no level of verification is called 'fulll'"),
        ({"leftover": "con"}, UsageError, "no leftover is called 'con'"),
        ({"rtol": -1.0}, UsageError, "--rtol must be 0 or more, not -1"),
        ({"atol": float("nan")}, UsageError, "--atol must be 0 or more, not nan"),
        ({"runtimes": ["tensorrt"]}, UsageError, "no runtime is called 'tensorrt'"),
        ({"runtimes": []}, UsageError, "no runtime was named"),
        ({"threads": 0}, UsageError, "the number of threads must be at least 1, not 0"),
        ({"fail_on": ["kept"]}, UsageError, "--fail-on 'kept' is a metric without a bound"),
        ({"fail_on": ["drift.worst>1"]}, UsageError,
         "--fail-on drift.worst>1: convert does not measure drift.worst"),
        ({"inputs": ["1xx3"]}, UsageError, "--input '1xx3' is not [NAME:]SHAPE[:DTYPE]"),
        ({"mean": "a"}, UsageError, "--mean 'a' is not [NAME:]NUMBER,NUMBER,..."),
        ({"std": 0}, UsageError, "--std has a 0, and is divided by"),
        ({"dynamic": ["x"]}, UsageError, "--dynamic 'x' is not NAME:AXIS=SYMBOL"),
        ({"input_data": "no.npz"}, UnreadableError, "cannot read no.npz: No such file or directory"),
        ({"output": "out.tflite"}, UsageError, "out.tflite has the suffix .tflite, which is no format"),
        ({"output": "out.pt2", "opset": 18}, UsageError, "--opset 18 was given" + FOR_ONNX + "out.pt2 is not"),
        ({"output": "O.PT2", "leftover": "conv"}, UsageError, "--leftover conv was given" + FOR_ONNX + "O.PT2 is not"),
        ({"output": "o.pt", "norm_affine": True}, UsageError, "--norm-affine was given" + FOR_ONNX + "o.pt is not"),
        ({"output": "o.pth", "mean": 1}, UsageError, "--mean, --std or --scale was given" + FOR_ONNX + "o.pth is not"),
        ({"runtimes": ["torch"]}, UsageError, "runtime 'torch' runs a PyTorch network, and this is an ONNX model"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_call_is_said_before_the_model_is_opened(
    arguments: dict[str, Any], error: type[BnfoldError], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        convert("no-such-model.onnx", **({"output": "out.onnx"} | arguments))
    assert caught.value.what == what
    assert list(tmp_path.iterdir()) == []


def test_the_output_is_looked_at_before_the_model_is_opened_and_after_it_was_found(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"precious")
    (tmp_path / "damaged.onnx").write_bytes(b"damaged")
    with pytest.raises(OutputError, match="already exists"):
        convert(tmp_path / "damaged.onnx", tmp_path / "out.onnx")
    with pytest.raises(UnreadableError):
        convert(tmp_path / "damaged.onnx", tmp_path / "out.onnx", force=True)
    with pytest.raises(UnreadableError, match="there is no file"):
        convert(tmp_path / "no-such-model.onnx", tmp_path / "out.onnx")
    with pytest.raises(UnreadableError, match="there is no file"):
        convert(tmp_path / "no-such-model.onnx", tmp_path / "no-such-folder" / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == b"precious"


@pytest.mark.parametrize("stage", ["loading", "folding", "writing", "verifying", "timing"])
def test_an_interruption_leaves_nothing(model: Path, tmp_path: Path, stage: str) -> None:
    (tmp_path / "out.onnx").write_bytes(b"precious")
    before = files(tmp_path)

    def interrupt(now: str, done: float | None) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(model, tmp_path / "out.onnx", force=True, progress=interrupt, **QUICK)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("models/resnet.pt", "models/resnet.folded.onnx"),
        ("m.onnx", "m.folded.onnx"),
        ("a.b.safetensors", "a.b.folded.onnx"),
        ("/abs/model", "/abs/model.folded.onnx"),
    ],
)
def test_the_default_output_lies_beside_the_model(model: str, output: str) -> None:
    assert default_output(model) == Path(output)
