"""What people get wrong in their first minutes, and the line that says what to do next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from torch import nn

from bnfold.cli.app import main

NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()

def sized(width, classes=10):
    return net()

class _Hidden:
    pass
"""

MISTAKES = {
    "a misspelt command": (["convrt", "model.onnx"], 2, "Did you mean 'convert'? See bnfold --help."),
    "a misspelt flag": (["convert", "model.onnx", "--ouput", "x.onnx"], 2, "Did you mean --output? See bnfold convert"),
    "a misspelt file": (["inspect", "modle.onnx"], 3, "Did you mean model.onnx"),
    "a checkpoint without its network": (
        ["convert", "weights.pt"],
        2,
        "Pass the code that builds it: --arch pkg.mod:factory or --arch path/file.py:factory.",
    ),
    "a network without its input": (
        ["convert", "weights.pt", "--arch", "nets.py:net"],
        2,
        "Pass the shape the network was trained with, e.g. --input",
    ),
    "a factory that is not there": (["convert", "weights.pt", "--arch", "nets.py:nett"], 2, "It defines net, sized."),
    "the wrong shape": (
        ["convert", "weights.pt", "--arch", "nets.py:net", "--input", "1x1x8x8"],
        2,
        "Pass the shape the network was trained with",
    ),
    "the output exists": (["convert", "model.onnx"], 5, "Pass --force to replace it, or name another output: -o FILE."),
    "a script for a model": (["inspect", "nets.py"], 3, "bnfold reads"),
    "a folder for a model": (
        ["inspect", "."],
        3,
        "Pass the file inside it: bnfold inspect model.folded.onnx (or model.onnx, scripted.pt)",
    ),
    "a folder for a model to convert": (
        ["convert", "zoo"],
        3,
        "Pass the file inside it: bnfold convert 'zoo/one model.onnx'",
    ),
    "a folder for one of two models": (
        ["verify", "model.onnx", "zoo"],
        3,
        "Pass the file inside it: 'zoo/one model.onnx'",
    ),
    "a folder without models": (["convert", "empty"], 3, "Pass the file inside it."),
    "a model in a folder that is not there": (["convert", "absent/model.onnx"], 3, "Check the path."),
    "a misspelt file and no folder for the report": (
        ["inspect", "modle.onnx", "--json", "absent/run.json"],
        3,
        "Did you mean model.onnx",
    ),
    "a misspelt suffix where the output exists": (
        ["convert", "model.onnx", "-o", "there.onx"],
        2,
        "Did you mean .onnx?",
    ),
    "an input of the wrong rank": (
        ["inspect", "model.onnx", "--input", "x:2x3x32"],
        2,
        "Pass a shape that agrees with the model's.",
    ),
    "an input that the model does not have": (
        ["inspect", "model.onnx", "--input", "image:1x3x6x6"],
        2,
        "Use one of those names.",
    ),
    "an input of the wrong dtype": (
        ["inspect", "model.onnx", "--input", "1x3x6x6:int64"],
        2,
        "Leave the dtype out, or use the model's.",
    ),
    "data for an input that the model does not have": (
        ["inspect", "model.onnx", "--input-data", "named.npz"],
        2,
        "Use one of those names.",
    ),
    "a misspelt file of code": (["convert", "weights.pt", "--arch", "net.py:net"], 2, "Did you mean nets.py?"),
    "a misspelt file of code where the output exists": (
        ["convert", "weights.pt", "--arch", "net.py:net", "-o", "model.folded.onnx"],
        2,
        "Did you mean nets.py?",
    ),
    "a file of code without the factory": (
        ["convert", "weights.pt", "--arch", "nets.py"],
        2,
        "Pass --arch nets.py:NAME. It defines net, sized.",
    ),
    "an argument that the factory does not take": (
        ["convert", "weights.pt", "--arch", "nets.py:sized", "--arch-arg", "width=4", "--arch-arg", "clases=7"],
        2,
        "Did you mean --arch-arg classes=7? It takes width, classes=10.",
    ),
    "an argument that the factory needs": (
        ["convert", "weights.pt", "--arch", "nets.py:sized"],
        2,
        "Pass --arch-arg width=VALUE. It takes width, classes=10.",
    ),
    "misspelt data": (["convert", "model.onnx", "--data", "namd.npz"], 3, "Did you mean named.npz?"),
    "misspelt input data": (["convert", "model.onnx", "--input-data", "namd.npz"], 3, "Did you mean named.npz?"),
    "data under other names": (
        ["convert", "model.onnx", "--data", "named.npz"],
        2,
        "Call the inputs x and the labels y; it has 'images', 'labels'.",
    ),
    "a program where weights were meant": (
        ["inspect", "scripted.pt"],
        3,
        "Only if you trust whoever made it, pass --tru",
    ),
    "a misspelt reason": (["explain", "ZEROPAD"], 2, "Did you mean ZERO-PAD? See them all: bnfold explain."),
    "a misspelt module": (["inspect", "model.onnx", "--exclude", "bnn"], 2, "Did you mean bn? See them all: bnfold"),
    "a misspelt number to fail on": (["inspect", "model.onnx", "--fail-on", "kep>0"], 2, "Did you mean kept?"),
    "a runtime for the other kind of model": (["bench", "model.onnx", "--runtime", "torch"], 2, "Use one of: ort, "),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    onnx.save(tiny.conv_bn(), folder / "model.onnx")
    (folder / "model.folded.onnx").write_bytes(b"mine")
    (folder / "nets.py").write_text(NETS)
    (folder / "there.onx").write_bytes(b"mine")
    (folder / "zoo").mkdir()
    onnx.save(tiny.conv_bn(), folder / "zoo" / "one model.onnx")
    (folder / "empty").mkdir()
    np.savez(folder / "named.npz", images=np.zeros((2, 3, 6, 6), np.float32), labels=np.zeros(2, np.int64))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    torch.save(network.state_dict(), folder / "weights.pt")
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 8, 8)), folder / "scripted.pt")
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, which people still use
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leads_to_what_to_do_next(
    mistake: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, advice = MISTAKES[mistake]
    monkeypatch.chdir(folder)
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    what, next_step = err.splitlines()
    assert what.startswith("error[")
    assert next_step.startswith(advice)
    assert (folder / "model.folded.onnx").read_bytes() == b"mine"
