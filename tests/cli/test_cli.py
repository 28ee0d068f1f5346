"""The command line, word for word: what is printed where, and with which exit code it leaves."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny

from bnfold.benchmark.bench import DEFAULT_MIN_TIME_S
from bnfold.cli import options
from bnfold.cli.app import app, main
from bnfold.evaluation import metrics
from bnfold.pipeline import asked
from bnfold.pipeline import line as pipeline
from bnfold.planning import leftover
from bnfold.reasons import Reason
from bnfold.running import runners
from bnfold.writing import export

ROOT = Path(__file__).resolve().parents[2]

NET = """
from torch import nn

def net(width=4):
    return nn.Sequential(nn.Conv2d(3, int(width), 3), nn.BatchNorm2d(int(width)), nn.ReLU())

def other():
    return nn.Linear(3, 3)
"""

QUICK = ["--threads", "1", "--min-time", "0.05"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything happens in a folder of its own, off a terminal, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def model(folder: Path) -> str:
    onnx.save(tiny.conv_bn(), folder / "model.onnx")
    return "model.onnx"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net.pt`, `missing.pt` (it lacks a weight) and `net.py`."""
    import torch

    made = tmp_path_factory.mktemp("checkpoints")
    (made / "net.py").write_text(NET)
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    torch.save(state, made / "net.pt")
    del state["1.running_var"]
    torch.save(state, made / "missing.pt")
    return made


def files(where: Path) -> dict[str, str]:
    found = [path for path in where.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bnfold", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment(), **more)


# What is refused


@pytest.fixture
def bad_files(folder: Path, checkpoints: Path) -> Path:
    (folder / "a-folder").mkdir()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("hello\n")
    whole = tiny.conv_bn().SerializeToString()
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "model.onnx").write_bytes(whole)
    (folder / "precious.onnx").write_bytes(b"precious")
    for name in ("net.py", "net.pt", "missing.pt"):
        (folder / name).write_bytes((checkpoints / name).read_bytes())
    return folder


REFUSALS = {
    "wrong path": (
        ["no-such-file.onnx"],
        3,
        "error[UNREADABLE]: there is no file no-such-file.onnx\nCheck the path.\n",
    ),
    "directory": (
        ["a-folder"],
        3,
        "error[UNREADABLE]: a-folder is a directory, not a model file\nPass the file inside it.\n",
    ),
    "empty file": (["empty.onnx"], 3, "error[UNREADABLE]: empty.onnx is empty\nDownload or save it again.\n"),
    "text file": (
        ["text.onnx"],
        3,
        "error[UNREADABLE]: text.onnx is a text file, not a model\n"
        "bnfold reads ONNX, PyTorch checkpoints and modules, safetensors, TorchScript and .pt2 files.\n",
    ),
    "truncated ONNX": (
        ["truncated.onnx"],
        3,
        "error[UNREADABLE]: truncated.onnx is a damaged or truncated ONNX file\nDownload or export it again.\n",
    ),
    "checkpoint without --arch": (
        ["net.pt"],
        2,
        "error[USAGE]: net.pt holds 7 weights, and not the network they belong to\n"
        "Pass the code that builds it: --arch pkg.mod:factory or --arch path/file.py:factory.\n",
    ),
    "--arch names no file": (
        ["net.pt", "--arch", "nets.py:net"],
        2,
        "error[USAGE]: --arch nets.py:net: there is no file nets.py\nDid you mean net.py?\n",
    ),
    "--arch names nothing in it": (
        ["net.pt", "--arch", "net.py:nett"],
        2,
        "error[USAGE]: --arch net.py:nett: net.py has no 'nett'\nIt defines net, other.\n",
    ),
    "--arch of another network": (
        ["net.pt", "--arch", "net.py:other"],
        3,
        "error[INPUT]: no key of net.pt is one of net.py:other: the file has '0.weight', '0.bias', '1.weight', "
        "'1.bias', '1.running_mean' and 2 more, the network 'weight', 'bias'\n"
        "Pass the --arch this checkpoint was trained with.\n",
    ),
    "checkpoint with a missing key": (
        ["missing.pt", "--arch", "net.py:net"],
        3,
        "error[INPUT]: missing.pt lacks 1 of the weights of net.py:net: '1.running_var' "
        "(6 matched, 1 missing, 0 unexpected)\n"
        "Pass a complete checkpoint, or the --arch and --arch-arg it was trained with.\n",
    ),
    "no --input": (
        ["net.pt", "--arch", "net.py:net"],
        2,
        "error[USAGE]: the network does not say what its input looks like\n"
        "Pass the shape the network was trained with, e.g. --input 1x3x224x224.\n",
    ),
    "wrong --input shape of a network": (
        ["net.pt", "--arch", "net.py:net", "--input", "1x5x8x8"],
        2,
        "error[USAGE]: the network does not take input 1x5x8x8 float32: RuntimeError: Given groups=1, weight of size "
        "[4, 3, 3, 3], expected input[1, 5, 8, 8] to have 3 channels, but got 5 channels instead\n"
        "Pass the shape the network was trained with, e.g. --input 1x3x224x224.\n",
    ),
    "wrong --input shape of an ONNX file": (
        ["model.onnx", "--input", "1x5x6x6"],
        2,
        "error[USAGE]: input 'x' is ?x3x6x6, and --input has 1x5x6x6\nPass a shape that agrees with the model's.\n",
    ),
    "unreadable --input": (
        ["model.onnx", "--input", "1xx3"],
        2,
        "error[USAGE]: --input '1xx3' is not [NAME:]SHAPE[:DTYPE]\n"
        "Write it like 1x3x224x224, x:1,3,224,224 or ids:[1,128]:int64.\n",
    ),
    "output in no folder": (
        ["model.onnx", "-o", "no-such-folder/out.onnx"],
        5,
        "error[OUTPUT]: the folder no-such-folder does not exist\nCreate it first: mkdir -p no-such-folder\n",
    ),
    "output is a folder": (
        ["model.onnx", "-o", "a-folder"],
        5,
        "error[OUTPUT]: a-folder is a directory\nName another output: -o FILE.\n",
    ),
    "existing output without --force": (
        ["model.onnx", "-o", "precious.onnx"],
        5,
        "error[OUTPUT]: precious.onnx already exists\nPass --force to replace it, or name another output: -o FILE.\n",
    ),
    "output is the input": (
        ["model.onnx", "-o", "model.onnx", "--force"],
        5,
        "error[OUTPUT]: model.onnx is the input itself\nName another output: -o FILE.\n",
    ),
    "ONNX to PyTorch": (
        ["model.onnx", "-o", "out.pt2"],
        4,
        "error[UNSUPPORTED]: model.onnx is an ONNX file, which cannot become a PyTorch network again\n"
        "Give the output the suffix .onnx, or convert the PyTorch model.\n",
    ),
    "an unknown suffix": (
        ["model.onnx", "-o", "out.onx"],
        2,
        "error[USAGE]: out.onx has the suffix .onx, which is no format\n"
        "Did you mean .onnx? Use one of: .onnx, .pt2, .safetensors, .pt, .pth.\n",
    ),
    "no suffix": (
        ["model.onnx", "-o", "out"],
        2,
        "error[USAGE]: out has no suffix, which picks the format\nUse one of: .onnx, .pt2, .safetensors, .pt, .pth.\n",
    ),
    "--opset without ONNX": (
        ["net.pt", "-o", "out.pt2", "--opset", "18"],
        2,
        "error[USAGE]: --opset 18 was given, which is for ONNX, and out.pt2 is not\n"
        "Drop it, or give the output the suffix .onnx.\n",
    ),
    "--external-data without ONNX": (
        ["net.pt", "-o", "out.safetensors", "--external-data", "always"],
        2,
        "error[USAGE]: --external-data always was given, which is for ONNX, and out.safetensors is not\n"
        "Drop it, or give the output the suffix .onnx.\n",
    ),
    "a runtime that runs something else": (
        ["net.pt", "-o", "out.pt2", "--bench", "--runtime", "ort"],
        2,
        "error[USAGE]: runtime 'ort' runs an ONNX model, and this is a PyTorch network\n"
        "Use one of: torch, torch-compile.\n",
    ),
    "JSON in no folder": (
        ["model.onnx", "--json", "no-such-folder/report.json"],
        5,
        "error[OUTPUT]: the folder no-such-folder does not exist\nCreate it first: mkdir -p no-such-folder\n",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "stderr"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_is_two_lines_and_touches_nothing(
    arguments: list[str], code: int, stderr: str, bad_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(bad_files)
    assert main(["convert", *arguments]) == code
    assert capsys.readouterr() == ("", stderr)
    assert stderr.count("\n") == 2
    assert files(bad_files) == before


def test_an_unwritable_folder_is_refused(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root, every folder can be written to
    assert main(["convert", model, "-o", "out.onnx"]) == 5
    said = f"error[OUTPUT]: the folder {folder} is not writable\n"
    hint = f"See who may write there: ls -ld {folder}; or name another output: -o FILE.\n"
    assert capsys.readouterr() == ("", said + hint)


def test_a_run_that_is_not_there_is_said_before_its_page_could_not_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "absent/run.json"]) == 3
    said = "error[UNREADABLE]: cannot read absent/run.json: No such file or directory\nCheck the path.\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (["conver"], "error[USAGE]: no such command 'conver'\nDid you mean 'convert'? See bnfold --help.\n"),
        (["frobnicate"], "error[USAGE]: no such command 'frobnicate'\nSee bnfold --help.\n"),
        (["convert"], "error[USAGE]: missing argument 'MODEL'\n"
            "Like: bnfold convert model.onnx (see bnfold convert --help)\n",
        ),
        (["verify", "a.onnx"], "error[USAGE]: missing argument 'AFTER'\n"
            "Like: bnfold verify model.onnx model.folded.onnx (see bnfold verify --help)\n",
        ),
        (
            ["convert", "m", "--external-dat"],
            "error[USAGE]: no such option: --external-dat\n"
            "Did you mean --external-data? See bnfold convert --help.\n",
        ),
        (["inspect", "m", "--zzz"], "error[USAGE]: no such option: --zzz\nSee bnfold inspect --help.\n"),
        (
            ["explain", "zero-pda"],
            "error[USAGE]: no reason has the code 'zero-pda'\nDid you mean ZERO-PAD? See them all: bnfold explain.\n",
        ),
        (["explain", "x"], "error[USAGE]: no reason has the code 'x'\nSee them all: bnfold explain.\n"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_two_lines(arguments: list[str], stderr: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", stderr)


@pytest.mark.parametrize("arguments", [["convert", "m", "-o"], ["bench", "a", "b", "c"], ["explain", "IO", "OVERFLOW"]])
def test_what_typer_refuses_is_two_lines_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 2
    assert lines[0].startswith("error[USAGE]: ")
    assert lines[1].startswith("See bnfold")


# What works


def test_convert_prints_the_report_and_nothing_else(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", model]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "1 BatchNorm → 0 (1 folded)"
    assert "Verification passed: proved the same function for all inputs; run on 4 inputs as" in out
    assert out.splitlines()[-1] == "Written to model.folded.onnx"
    assert "\x1b" not in out
    assert (folder / "model.folded.onnx").exists()


def test_networks_are_proved_and_drawn(checkpoints: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = str(checkpoints / "net.pt")
    how = ["--arch", f"{checkpoints / 'net.py'}:net", "--input", "1x3x6x6"]
    assert main(["convert", net, *how, "-o", "f.safetensors"]) == 0
    assert main(["verify", net, "f.safetensors", *how, "--html", "r.html", "--json", "r.json"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "The same function: proved for all inputs as torch exports them; run on " in said
    assert "for the call input ?×3×6×6: it trusts the exporter" in said
    run = json.loads((folder / "r.json").read_text())
    assert (run["verification"]["exported"], run["verification"]["certificate"]["proved"]) == (True, True)
    assert [node["op"] for node in run["picture"]["after"]] == ["Input", "conv2d", "relu", "Output"]
    assert main(["bench", net, "f.safetensors", *how, *QUICK, "--json", "b.json"]) == 0
    assert json.loads((folder / "b.json").read_text())["picture"]["after"] is not None


def test_a_network_that_cannot_be_exported_is_compared_and_says_so(folder: Path) -> None:
    import torch

    code = "from torch import nn\nclass Net(nn.Linear):\n    def forward(self, x):\n"
    (folder / "branch.py").write_text(
        code + "        y = super().forward(x)\n        return y if y.sum() > 0 else -y\n"
    )
    torch.save(torch.nn.Linear(3, 3).state_dict(), folder / "b.pt")
    how = ["--arch", "branch.py:Net", "--arch-arg", "in_features=3", "--arch-arg", "out_features=3"]
    assert main(["verify", "b.pt", "b.pt", *how, "--input", "1x3", "--json", "b.json"]) == 0
    run = json.loads((folder / "b.json").read_text())
    assert run["verification"]["notes"][0].startswith("not proved, only compared by running: torch ")
    assert any(note.startswith("no graph is shown: torch ") for note in run["notes"])
    assert run.get("picture") is None


def test_a_checkpoint_is_converted(checkpoints: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(checkpoints / "net.pt"), "--arch", f"{checkpoints / 'net.py'}:net", "--arch-arg", "width=4"]
    assert main(["convert", *arguments, "--input", "1x3x8x8", "-o", "out.onnx", "--fail-on", "kept>0"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("1 BatchNorm → 0 (1 folded)\n")
    assert "state dict: " not in out
    assert [node.op_type for node in onnx.load(folder / "out.onnx").graph.node] == ["Conv", "Relu"]


def test_a_failed_check_exits_with_1(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out.onnx").write_bytes(b"precious")
    assert main(["convert", model, "-o", "out.onnx", "--force", "--fail-on", "folded>0"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("1 BatchNorm → 0 (1 folded): REJECTED, a check failed\n")
    assert err == (
        "error[CHECK]: --fail-on folded>0: folded is 1\n"
        "The folded model was left as out.onnx.rejected for inspection.\n"
    )
    assert (folder / "out.onnx").read_bytes() == b"precious"


def test_inspect_says_what_would_happen(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", model, "-v"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("1 BatchNorm → 0 (1 would fold)\n")
    assert "bn" in out
    assert files(folder) == {"model.onnx": files(folder)["model.onnx"]}
    assert main(["inspect", model, "--fail-on", "folded>0"]) == 1
    assert capsys.readouterr().err == (
        "error[CHECK]: --fail-on folded>0: folded is 1\n"
        "The report says what was measured; change the model or the condition.\n"
    )


def test_verify_says_yes_and_no(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(tiny.folded(), folder / "right.onnx")
    onnx.save(tiny.folded(off_by=0.1), folder / "wrong.onnx")
    assert main(["verify", model, "right.onnx"]) == 0
    assert capsys.readouterr().out.startswith("The same function: proved for all inputs; run on 4 inputs as well\n")
    assert main(["verify", model, "wrong.onnx"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Not the same function\n")
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error[CHECK]: output 'y': the largest difference is ")
    assert lines[1] == (
        "See where they part with --per-site; if such a difference is acceptable, allow it with --rtol or --atol."
    )
    assert main(["verify", model, "wrong.onnx", "--rtol", "1"]) == 0
    capsys.readouterr()
    assert main(["verify", model, "wrong.onnx", "--rtol", "1e-9"]) == 1
    assert capsys.readouterr().err.splitlines()[1] == (
        "If such a difference is acceptable, allow it with --rtol or --atol."
    )


def test_verify_does_not_call_different_what_it_could_not_run(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.conv_bn()
    other.graph.input[0].name = other.graph.node[0].input[0] = "image"
    onnx.save(other, folder / "other.onnx")
    assert main(["verify", model, "other.onnx", "--json", "run.json"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Cannot be compared\n")
    assert "\nVerification FAILED: nothing could be compared\n" in out
    assert err == (
        "error[CHECK]: input 'x' is missing after; input 'image' is new after\n"
        "These take different inputs; is it the right file?\n"
    )
    assert json.loads((folder / "run.json").read_text())["verification"]["inputs"] == 0
    assert main(["report", "run.json", "-o", "run.md"]) == 0
    assert "annot be compared" in (folder / "run.md").read_text()


def test_verify_takes_arrays(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "x.npz", x=np.zeros((2, 3, 6, 6), np.float32))
    assert main(["verify", model, model, "--input-data", "x.npz"]) == 0
    assert capsys.readouterr().out.startswith("The same function: proved for all inputs; run on 1 input as well\n")


def test_bench_times_one_or_two(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", model, "--runtime", "ort", *QUICK]) == 0
    assert capsys.readouterr().out.startswith("ort: ")
    onnx.save(tiny.folded(), folder / "after.onnx")
    assert main(["bench", model, "after.onnx", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Latency at batch 1 on 1 thread\n" in out
    assert "(no gain is expected: onnxruntime folds\n" in out or "no gain is expected" in out.replace("\n  ", " ")
    assert main(["bench", model, "--fail-on", "speedup.low<1", *QUICK]) == 1


def test_preprocessing_becomes_part_of_the_model(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--scale", "1/255", "--mean", "0.485,0.456,0.406", "--std", "x:0.229,0.224,0.225"]
    assert main(["inspect", model, *words]) == 0
    said = (
        "  preprocessing of input 'x': its scale folded; its shift stays as one Add\n"
        "  (ZERO-PAD: the only absorber pads with zeros and the shift has nowhere else to\n"
        "  go)\n"
    )
    assert said in capsys.readouterr().out
    assert main(["convert", model, *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert said in out
    assert [node.op_type for node in onnx.load(folder / "model.folded.onnx").graph.node] == ["Add", "Conv", "Relu"]


@pytest.mark.parametrize("command", ["convert", "inspect"])
def test_preprocessing_that_does_not_fit_is_two_lines(
    command: str, model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(folder)
    for words, stderr in (
        (
            ["--std", "0.2,0,0.2"],
            "--std has a 0, and is divided by\nPass the standard deviations of the training data.",
        ),
        (
            ["--mean", "0.5;0.5"],
            "--mean '0.5;0.5' is not [NAME:]NUMBER,NUMBER,...\n"
            "Write it like 0.485,0.456,0.406, one number per channel, a single 0.5 for all, "
            "or image:0.5 for one input.",
        ),
        (
            ["--mean", "0.5,0.5"],
            "--mean has 2 values, and input 'x' (?x3x6x6) does not have as many channels, "
            "in axis 1 or in the last one\n"
            "Give one value per channel, or a single one for all of them.",
        ),
    ):
        assert main([command, model, *words]) == 2
        assert capsys.readouterr() == ("", f"error[USAGE]: {stderr}\n")
    assert files(folder) == before


def test_what_stays_can_be_something_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(tiny.bn_relu(), folder / "model.onnx")
    for how, ops, words in (
        ("keep", ["BatchNormalization", "Sigmoid"], ""),
        ("affine", ["Mul", "Add", "Sigmoid"], "Mul and Add"),
        ("conv", ["Conv", "Sigmoid"], "a depthwise 1×1 Conv"),
    ):
        assert main(["convert", "model.onnx", "--leftover", how, "--force"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out.startswith("1 BatchNorm → 1 (1 kept)\n")
        assert (f"  the BatchNorm that stays is written as {words}" in out) == bool(words)
        assert [node.op_type for node in onnx.load(folder / "model.folded.onnx").graph.node] == ops
    assert main(["convert", "model.onnx", "--leftover", "mull"]) == 2
    assert capsys.readouterr() == (
        "",
        "error[USAGE]: no leftover is called 'mull'\nThere are: keep, affine, conv.\n",
    )


def test_other_normalisations_fold_where_they_are_asked_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], name="ln"),
        onnx.helper.make_node("Gemm", ["n", "w"], ["y"], name="linear"),
    ]
    drawn = {"gamma": rng.uniform(0.5, 2, 6), "beta": rng.standard_normal(6), "w": rng.standard_normal((6, 4))}
    weights = {name: array.astype(np.float32) for name, array in drawn.items()}
    onnx.save(tiny.model(nodes, weights, shape=("N", 6), out_shape=("N", 4)), folder / "model.onnx")
    for words, inputs in (([], ["x", "gamma", "beta"]), (["--norm-affine"], ["x", "gamma"])):
        assert main(["inspect", "model.onnx", *words]) == 0
        said = "  and 1 of 1 scales and biases of other normalisations\n" in capsys.readouterr().out
        assert said == bool(words)
        assert main(["convert", "model.onnx", "--force", *words]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "Verification passed" in out
        assert out.startswith("0 BatchNorms\n" if words else "0 BatchNorms: nothing to fold\n")
        assert list(onnx.load(folder / "model.folded.onnx").graph.node[0].input) == inputs


def test_json_to_stdout_is_json_and_nothing_else(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", model, "--json", "-", "--bench", "-v", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    made = json.loads(out)
    assert list(made) == [
        *("schema", "bnfold", "command", "passed", "failures", "conditions", "source", "output", "rejected"),
        *("counts", "sites", "affines", "operators", "verification", "benchmark"),
        *("accuracy", "drift", "recalibration", "notes", "environment", "picture"),
    ]
    assert made["counts"]["folded"] == 1
    assert made["output"]["sha256"] == files(folder)["model.folded.onnx"]


def test_json_to_a_file_leaves_the_text(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "report.json").write_text("old")
    assert main(["verify", model, model, "--json", "report.json"]) == 0
    assert capsys.readouterr().out.startswith("The same function")
    made = json.loads((folder / "report.json").read_text())
    assert made["verification"]["passed"] is True
    assert made["source"] == {"path": "model.onnx", "format": "onnx", "sha256": files(folder)["model.onnx"]}


def test_json_is_written_of_a_failed_check_too(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", model, "--json", "report.json", "--fail-on", "top1.delta<0"]) == 1
    made = json.loads((folder / "report.json").read_text())
    assert made["output"] is None
    assert made["verification"]["passed"] is True
    assert "top1.delta was not measured" in capsys.readouterr().err


def test_quiet_says_nothing_but_errors(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", model, "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["convert", model, "-q"]) == 5
    assert capsys.readouterr().err.startswith("error[OUTPUT]: model.folded.onnx already exists\n")
    assert main(["convert", model, "-q", "--force", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["kept"] == 0


def test_a_name_in_a_model_does_not_act_on_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tiny.conv_bn(name="\x1b]0;owned\x07\u202e[bold]bn")
    hostile.graph.output[0].name = hostile.graph.node[2].output[0] = "\x1b[2Jy"
    onnx.save(hostile, folder / "hostile.onnx")
    assert main(["convert", "hostile.onnx", "-v", "--fail-on", "folded>0"]) == 1
    onnx.save(tiny.conv_bn(), folder / "plain.onnx")
    assert main(["verify", "hostile.onnx", "plain.onnx"]) == 1
    out, err = capsys.readouterr()
    assert [char for char in out + err if not char.isprintable() and char != "\n"] == []
    assert "[bold]bn" in out


@pytest.mark.parametrize("columns", ["40", "200"])
def test_every_width_holds_every_line(
    columns: str, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["convert", model, "--bench", "--force", "-v", *QUICK]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= int(columns)


# Explaining, help, version, completion


def test_explain_says_what_a_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "zero-pad"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("ZERO-PAD\n  The only absorber pads with zeros and the shift has nowhere else to go.\n\n")
    assert "    x ── BN ── Conv 3×3, padding 1      0 0 0 0\n" in out
    assert "\nWhat would let it fold\n  - In the model: pad before the BatchNorm" in out


def test_explain_says_what_all_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == [
        reason.code for reason in Reason
    ]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("bnfold ")
    assert out.count("\n") == 1


def test_without_a_command_the_help_is_shown_and_it_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: bnfold ")


COMMANDS = ("convert", "inspect", "verify", "drift", "bench", "explain")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_ends_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h"):
        assert main([*command.split(), flag]) == 0
        lines = capsys.readouterr().out.rstrip().splitlines()
        examples = lines[lines.index("  Examples:") + 1 :]
        assert examples
        assert all(line.startswith(f"    bnfold {command}".rstrip()) for line in examples)


def test_the_help_lists_every_command_in_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    out = capsys.readouterr().out
    assert "..." not in out.partition("Commands:")[2]
    for command in COMMANDS:
        assert f"\n  {command} " in out


def test_the_examples_of_the_help_parse(capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    for command in COMMANDS:
        main([command, "--help"])
        for line in capsys.readouterr().out.splitlines():
            if line.startswith("    bnfold "):
                assert main(shlex.split(line)[1:]) in (0, 3)
                assert "USAGE" not in capsys.readouterr().err


def test_parameters_are_called_what_the_pipeline_calls_them() -> None:
    printing = {"json_file", "verbose", "quiet", "no_color", "no_progress"}
    printing |= {"html_file", "markdown_file", "github", "junit_file", "graph_file"}
    printing |= {"isolate", "max_memory", "max_time"}
    for command in app.registered_commands:
        assert command.callback is not None
        if command.callback.__name__ in ("explain", "report"):
            continue
        ours = inspect.signature(command.callback).parameters
        theirs = inspect.signature(getattr(pipeline, command.callback.__name__)).parameters
        assert set(ours) - printing == set(theirs) - {"progress", "picture", "isolate"}
        for name in set(ours) - printing:
            default = ours[name].default
            if default is not None:
                assert default == theirs[name].default


def test_the_words_of_the_help_are_those_of_the_pipeline() -> None:
    assert options.LEVELS == asked.LEVELS
    assert options.LEFTOVERS == leftover.LEFTOVERS
    assert options.EXTERNAL_DATA == export.EXTERNAL_DATA
    assert options.RUNTIMES == runners.RUNTIMES
    assert tuple(metrics.TOP) == options.METRICS
    assert options.MIN_TIME_S == DEFAULT_MIN_TIME_S


def test_an_unexpected_exception_is_a_bug_of_ours(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise RuntimeError("the sky fell")

    monkeypatch.setattr(pipeline, "inspect", broken)
    assert main(["inspect", model]) == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error[BUG]: RuntimeError: the sky fell\n"
        "This is a mistake in bnfold; please report it with the output of the same command and -vv.\n"
    )
    assert main(["inspect", model, "-vv"]) == 6
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_in_process_is_130(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "inspect", interrupted)
    assert main(["inspect", model]) == 130
    assert capsys.readouterr() == ("", "interrupted; nothing was written\n")


def test_ctrl_c_says_in_which_step_and_what_was_written(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "verified", interrupted)
        assert main(["convert", model]) == 130
        assert capsys.readouterr() == ("", "interrupted while writing; nothing was written\n")
    with monkeypatch.context() as patch:
        patch.setattr("bnfold.cli.commands._print", interrupted)
        assert main(["convert", model]) == 130
        said = "interrupted while writing the report; model.folded.onnx was written\n"
        assert capsys.readouterr() == ("", said)
    assert main(["explain", "IO"]) == 0


# As a process


def test_help_answers_within_half_a_second_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['bnfold', '--help']; from bnfold.cli.app import main; code = main(); "
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxscript', 'onnxruntime', 'numpy', 'rich'} & set(sys.modules); "
        "print('LOADED', *sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(), timeout=60
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert done.stderr == "LOADED\n"
    assert min(spent) <= 0.5


def test_the_exit_code_reaches_the_shell_without_a_traceback() -> None:
    done = run("inspect", "no-such-file.onnx")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error[UNREADABLE]: there is no file no-such-file.onnx\nCheck the path.\n"


def test_a_reader_that_leaves_early_is_no_error(model: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "bnfold", "inspect", model, "-v"],
            stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=environment(), timeout=120,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_leaves_nothing_behind(model: str, folder: Path) -> None:
    (folder / "out.onnx").write_bytes(b"precious")
    before = files(folder)
    command = [
        sys.executable,
        "-m",
        "bnfold",
        "convert",
        model,
        "-o",
        "out.onnx",
        "--force",
        "--bench",
        "--min-time",
        "90",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob(".bnfold-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(r"interrupted while (writing|verifying|timing); nothing was written\n", err)
    assert files(folder) == before
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bnfold con", ["convert"]),
        ("bnfold explain ZERO", ["ZERO-PAD", "ZERO-GAMMA"]),
        ("bnfold convert --verify q", ["quick"]),
        ("bnfold convert --leftover a", ["affine"]),
        ("bnfold convert --external", ["--external-data"]),
    ],
)
def test_the_shell_completes(words: str, expected: list[str]) -> None:
    complete = {"_BNFOLD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "bnfold"],
        capture_output=True, text=True, check=False, env=environment(**complete), timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == expected
