"""The whole line with PyTorch outputs: what is written was checked, and nothing else is touched."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import safetensors.torch
import tiny
import torch
from networks import conv_bn, damaged, drawn, exported
from torch import nn

import bnfold
from bnfold.cli.app import main
from bnfold.errors import BnfoldError, OutputError, UnsupportedError, UsageError
from bnfold.pipeline import line as pipeline
from bnfold.pipeline.folding import Folded
from bnfold.pipeline.line import convert
from bnfold.quiet import quiet

folding = importlib.import_module("bnfold.pipeline.folding")

NETS = """
import torch
from torch import nn
from torch.nn import functional as F

def net(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(F.conv2d(x, self.weight))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x)).reshape(2, -1)
"""

INPUT = {"inputs": ["1x3x6x6"]}
NET = {"arch": "nets.py:net", **INPUT}
FORMATS = ("out.pt2", "out.safetensors", "out.pt")
QUICK: dict[str, Any] = {"bench": True, "min_time": 0.05, "threads": 1}
X = torch.randn(2, 3, 6, 6)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "nets.py").write_text(NETS)
    torch.save(conv_bn().state_dict(), tmp_path / "net.pt")
    yield tmp_path
    assert [path.name for path in tmp_path.rglob(".*")] == []


@pytest.fixture
def wrong_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the fold get one weight wrong, in modules and in programs."""
    right = folding.fold

    def wrong(model: Any, *arguments: Any, **more: Any) -> Folded:
        folded = right(model, *arguments, **more)
        if isinstance(model, nn.Module):
            return Folded(damaged(folded.model), folded.plan)
        with torch.no_grad():
            folded.model.state_dict["0.weight"].view(-1)[0] += 0.01
        return folded

    monkeypatch.setattr(folding, "fold", wrong)


def files(where: Path) -> dict[str, str]:
    found = [path for path in where.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def run_file(path: str, x: torch.Tensor) -> torch.Tensor:
    """What the written file computes, by torch and safetensors alone where that is possible."""
    if path.lower().endswith(".pt2"):
        with open(path, "rb") as file, quiet():
            return torch.export.load(file).module()(x)  # type: ignore[no-any-return]
    fresh = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    return bnfold.restore(fresh, path)(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("output", [*FORMATS, "OUT.PT2", "Out.Pth", "OUT.SafeTensors"])
def test_a_checkpoint_becomes_a_folded_file_of_the_suffix(output: str, folder: Path) -> None:
    before = files(folder)
    report = convert("net.pt", output, **NET, fail_on=["kept>0", "error.rel>1e-6"])
    assert report.passed
    assert report.output is not None
    assert files(folder) == before | {output: report.output.sha256}
    assert report.verification is not None
    assert (report.verification.level, report.verification.inputs) == ("full", 4)
    assert 0 < report.verification.outputs[0].rel < 1e-6
    counts = report.counts()
    assert [counts[name] for name in ("batch_norms", "folded", "kept", "nodes_before", "nodes_after")] == [
        1,
        1,
        0,
        3,
        2,
    ]
    assert (counts["bytes_before"], counts["bytes_after"]) == (504, 448)
    assert report.notes == ("state dict: 6 matched, 0 missing, 0 unexpected",)
    json.dumps(report.to_dict(), allow_nan=False)
    for batch in (1, 5):
        x = torch.randn(batch, 3, 6, 6)
        assert torch.allclose(run_file(output, x), conv_bn()(x), atol=1e-5)


def test_the_recipe_stands_in_the_metadata_and_says_where_it_comes_from(folder: Path) -> None:
    convert("net.pt", "out.safetensors", **NET)
    convert("net.pt", "out.pt", **NET)
    with safetensors.safe_open("out.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["bnfold"])
        assert sorted(file.keys()) == ["folded:0.bias", "folded:0.weight"]
    assert recipe == torch.load("out.pt", weights_only=True)["bnfold"]
    assert recipe["schema"] == 1
    assert recipe["sha256"] == files(folder)["net.pt"]
    assert recipe["changes"] == [
        {"path": "0", "was": "Conv2d", "becomes": "itself", "adds": ["bias"]},
        {"path": "1", "was": "BatchNorm2d", "becomes": "identity"},
    ]


@pytest.mark.parametrize("output", FORMATS)
def test_what_is_checked_is_the_file_as_written(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folded network in memory is damaged after it was written: what is compared comes from the file."""
    made: list[Any] = []
    right = folding.fold

    def kept(*arguments: Any, **more: Any) -> Folded:
        made.append(right(*arguments, **more))
        return made[0]

    real = pipeline.verified

    def spy(*arguments: Any) -> Any:
        assert not Path(output).exists()
        with torch.no_grad():
            model = made[0].model
            for weight in model.parameters() if isinstance(model, nn.Module) else model.state_dict.values():
                weight.zero_()
        return real(*arguments)

    monkeypatch.setattr(folding, "fold", kept)
    monkeypatch.setattr(pipeline, "verified", spy)
    assert convert("net.pt", output, **NET).passed


@pytest.mark.parametrize("output", FORMATS)
def test_a_wrong_fold_never_gets_the_outputs_name(output: str, folder: Path, wrong_fold: None) -> None:
    Path(output).write_bytes(b"precious")
    before = files(folder)
    report = convert("net.pt", output, force=True, **NET)
    assert not report.passed
    assert report.output is None
    assert report.rejected == f"{output}.rejected"
    assert files(folder) == before | {f"{output}.rejected": files(folder)[f"{output}.rejected"]}
    assert report.verification is not None
    assert "the largest difference is" in report.verification.failures[0]
    assert convert("net.pt", output, force=True, verify="off", **NET).passed


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("stage", ["loading", "exporting", "folding", "writing", "verifying", "timing"])
def test_an_interruption_leaves_nothing(output: str, stage: str, folder: Path) -> None:
    Path(output).write_bytes(b"precious")
    before = files(folder)

    def interrupt(now: str, done: float | None) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert("net.pt", output, force=True, progress=interrupt, **NET, **QUICK)
    assert files(folder) == before


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_leaves_what_was_there(
    output: str, error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    Path(output).write_bytes(b"precious")
    before = files(folder)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        convert("net.pt", output, force=True, **NET)
    assert files(folder) == before
    if isinstance(error, OSError):
        assert str(caught.value) == (
            f"error[OUTPUT]: cannot write {output}: No space left on device\n"
            "Free some space; what was there before is untouched."
        )


def test_both_are_timed_in_torch(folder: Path) -> None:
    for output in FORMATS:
        report = convert("net.pt", output, **NET, **QUICK)
        assert report.benchmark is not None
        [row] = report.benchmark.rows
        assert (row.runtime, row.threads) == ("torch", 1)
        assert row.speedup is not None


def test_a_batch_that_does_not_stay_open_is_said(folder: Path) -> None:
    torch.manual_seed(0)
    state = {f"conv.{name}": value for name, value in nn.Conv2d(3, 4, 3, bias=False).state_dict().items()}
    state |= {f"bn.{name}": value for name, value in drawn(nn.BatchNorm2d(4)).state_dict().items()}
    torch.save(state, "fixed.pt")
    for output in FORMATS:
        report = convert("fixed.pt", output, arch="nets.py:Fixed", inputs=["2x3x6x6"], force=True)
        assert report.passed
        assert report.verification is not None
        assert report.verification.inputs == 3
        assert report.notes[1].startswith("the batch dimension is fixed, because the network does not leave it open: ")
    with pytest.raises(UsageError, match="does not leave --dynamic x:2=height open"):
        convert("fixed.pt", "o.pt2", arch="nets.py:Fixed", inputs=["2x3x6x6"], dynamic=["x:2=height"])


def test_other_dimensions_stay_open_if_asked(folder: Path) -> None:
    report = convert("net.pt", "out.pt2", **NET, dynamic=["input:2=height", "input:3=width"])
    assert report.passed
    assert run_file("out.pt2", torch.randn(1, 3, 9, 11)).shape == (1, 4, 7, 9)


def test_input_data_is_used(folder: Path) -> None:
    for output in FORMATS:
        report = convert("net.pt", output, arch="nets.py:net", input_data={"x": X.numpy()}, **QUICK)
        assert report.verification is not None
        assert report.verification.inputs == 1
        assert report.benchmark is not None
        assert report.benchmark.batch == 2
        assert "the input 'input' is fed the array 'x'" in report.notes


def test_a_pickled_module_becomes_a_program_and_a_state_dict(folder: Path) -> None:
    torch.save(conv_bn().train(), "module.pt")
    for output in FORMATS:
        report = convert("module.pt", output, **INPUT)
        assert report.passed
        assert report.source.format == "module"
        assert torch.allclose(run_file(output, X), conv_bn()(X), atol=1e-5)


def test_a_program_becomes_a_program_or_onnx(folder: Path) -> None:
    torch.export.save(exported(conv_bn(), X), "net.pt2")
    report = convert("net.pt2", "out.pt2", trust_pickle=True)
    assert report.passed
    assert (report.source.format, report.counts()["folded"]) == ("pt2", 1)
    assert report.verification is not None
    assert report.verification.inputs == 4
    assert convert("net.pt2", "out.onnx", trust_pickle=True, fail_on=["kept>0"]).passed
    assert convert("out.pt2", "again.onnx", trust_pickle=True, fail_on=["folded>0"]).passed
    assert [node.op_type for node in onnx.load("again.onnx").graph.node] == ["Conv", "Relu"]
    assert convert("out.pt2", "again.pt2", trust_pickle=True, fail_on=["folded>0"]).passed


def test_torchscript_becomes_a_program(folder: Path) -> None:
    with quiet():
        torch.jit.trace(conv_bn(), X).save("net.ts")
    report = convert("net.ts", "out.pt2", trust_pickle=True, **INPUT)
    assert (report.passed, report.counts()["folded"]) == (True, 1)


def refusal(error: type[BnfoldError], *arguments: Any, **more: Any) -> str:
    before = files(Path.cwd())
    with pytest.raises(error) as caught:
        convert(*arguments, **more)
    assert files(Path.cwd()) == before
    return str(caught.value)


def test_what_has_no_class_is_no_state_dict(folder: Path) -> None:
    torch.export.save(exported(conv_bn(), X), "net.pt2")
    assert refusal(UnsupportedError, "net.pt2", "out.pt", trust_pickle=True) == (
        "error[UNSUPPORTED]: out.pt would be a folded state dict, and net.pt2 has no class to restore it into\n"
        "Give the output the suffix .pt2: a program holds weights and graph."
    )
    onnx.save(tiny.conv_bn(), "model.onnx")
    assert "model.onnx is an ONNX file" in refusal(UnsupportedError, "model.onnx", "out.safetensors")


def test_a_fold_that_does_not_fit_into_the_class_is_no_state_dict(folder: Path) -> None:
    torch.manual_seed(0)
    state = {"weight": torch.randn(4, 3, 3, 3)}
    state |= {f"bn.{name}": value for name, value in drawn(nn.BatchNorm2d(4)).state_dict().items()}
    torch.save(state, "functional.pt")
    said = refusal(UnsupportedError, "functional.pt", "out.safetensors", arch="nets.py:Functional", **INPUT)
    assert said == (
        "error[UNSUPPORTED]: out.safetensors would be a folded state dict, which does not fit into Functional: the "
        "result is a graph, because forward of the model calls the operator itself, without a bias\n"
        "Give the output the suffix .pt2: a program holds weights and graph."
    )
    assert convert("functional.pt", "out.pt2", arch="nets.py:Functional", **INPUT, fail_on=["kept>0"]).passed


def test_a_folded_state_dict_is_restored_when_it_is_loaded(folder: Path) -> None:
    convert("net.pt", "folded.safetensors", **NET)
    report = convert("folded.safetensors", "out.onnx", **NET, fail_on=["batch_norms>0"])
    assert report.passed
    assert report.notes == (
        "folded state dict: 2 tensors, 2 modules changed",
        "the file written is the model as it came, as ONNX",
    )
    assert pipeline.verify("net.pt", "folded.safetensors", **NET).passed
    assert pipeline.verify("folded.safetensors", "out.onnx", **NET).passed
    assert refusal(UnsupportedError, "folded.safetensors", "again.pt", **NET) == (
        "error[UNSUPPORTED]: folded.safetensors is a folded state dict already, and again.pt would be one of another "
        "class\nFold the unfolded checkpoint, or give the output the suffix .pt2 or .onnx."
    )
    assert refusal(UsageError, "folded.safetensors", "o.onnx").startswith(
        "error[USAGE]: folded.safetensors holds 2 weights, and not the network they belong to\n"
    )


def test_a_folded_state_dict_of_another_network_is_refused(folder: Path) -> None:
    convert("net.pt", "folded.pt", **NET)
    said = refusal(BnfoldError, "folded.pt", "out.onnx", **NET, arch_args={"width": "5"})
    assert said.startswith("error[INPUT]: folded.pt was folded from another network than nets.py:net: '0.weight', ")


# The command line


def test_the_command_line_writes_verifies_and_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arch = ["--arch", "nets.py:net", "--input", "1x3x6x6"]
    for output in FORMATS:
        assert main(["convert", "net.pt", *arch, "-o", output]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out.splitlines()[0] == "1 BatchNorm → 0 (1 folded)"
        assert out.splitlines()[-1] == f"Written to {output}"
        assert main(["convert", "net.pt", *arch, "-o", output]) == 5
        assert capsys.readouterr().err.startswith(f"error[OUTPUT]: {output} already exists\n")
    assert main(["verify", "net.pt", "out.safetensors", *arch]) == 0
    assert capsys.readouterr().out.startswith(
        "The same function: proved for all inputs as torch exports them; run on 3 inputs\nas well\n"
    )
    assert main(["verify", "net.pt", "out.pt2", *arch, "--trust-pickle"]) == 0
    assert main(["bench", "net.pt", "out.pt", *arch, "--threads", "1", "--min-time", "0.05"]) == 0
    assert main(["bench", "out.pt2", "--trust-pickle", "--threads", "1", "--min-time", "0.05"]) == 0
    assert "torch: a model against itself" not in capsys.readouterr().err
    assert main(["verify", "out.pt2", "out.pt2"]) == 3
    assert main(["verify", "out.pt2", "out.pt2", "--trust-pickle", "--arch", "nets.py:net"]) == 2
    assert capsys.readouterr().err.endswith(
        "error[USAGE]: --arch was given, and out.pt2 and out.pt2 hold the networks themselves\nDrop --arch.\n"
    )


def test_verify_says_no(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(damaged(conv_bn()).state_dict(), "wrong.pt")
    arch = ["--arch", "nets.py:net", "--input", "1x3x6x6"]
    assert main(["verify", "net.pt", "wrong.pt", *arch, "--json", "-"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["source"]["format"] == "state-dict"
    assert found["verification"]["passed"] is False
    assert found["counts"]["batch_norms"] is None
    assert err.startswith("error[CHECK]: output 'output': the largest difference is ")


def test_an_original_that_is_loaded_is_not_changed(folder: Path) -> None:
    module = conv_bn()
    state = copy.deepcopy(module.state_dict())
    torch.save(module, "module.pt")
    convert("module.pt", "out.pt", **INPUT)
    again = torch.load("module.pt", weights_only=False)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
