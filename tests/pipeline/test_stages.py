"""What a report says about models in which there is nothing to fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from torch import nn

from bnfold.errors import UsageError
from bnfold.pipeline.line import convert, inspect

AS_IT_CAME = "the file written is the model as it came"
MAYBE = (
    "torch.onnx.export, which wrote this file, folds BatchNorms behind convolutions by default: "
    "there may have been some"
)


def saved(folder: Path, model: onnx.ModelProto, producer: str = "") -> Path:
    model.producer_name = producer
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_model_without_batchnorms_is_written_as_it_came_and_that_is_said(tmp_path: Path) -> None:
    assert AS_IT_CAME in convert(saved(tmp_path, tiny.folded())).notes


def test_what_was_folded_or_put_in_front_is_not_as_it_came(tmp_path: Path) -> None:
    assert AS_IT_CAME not in convert(saved(tmp_path, tiny.conv_bn())).notes
    assert AS_IT_CAME not in convert(saved(tmp_path, tiny.folded()), force=True, std=2.0).notes


@pytest.mark.parametrize(("output", "form"), [("out.onnx", ", as ONNX"), ("out.pt2", "")])
def test_a_network_becomes_another_kind_of_file(output: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(3, 4, 3)\n")
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "net.pt")
    arch = f"{tmp_path / 'nets.py'}:net"
    report = convert(tmp_path / "net.pt", tmp_path / output, arch=arch, inputs=["1x3x6x6"], verify="quick")
    assert report.notes[-1] == AS_IT_CAME + form


def test_the_exporter_may_have_folded_before(tmp_path: Path) -> None:
    assert MAYBE in inspect(saved(tmp_path, tiny.folded(), "pytorch")).notes
    assert MAYBE not in inspect(saved(tmp_path, tiny.folded(), "tf2onnx")).notes
    assert MAYBE not in inspect(saved(tmp_path, tiny.conv_bn(), "pytorch")).notes
    without = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 18]> f (float[1] x) => (float[1] y) '
                                      "{ y = Relu(x) }")  # fmt: skip
    assert MAYBE not in inspect(saved(tmp_path, without, "pytorch")).notes


def test_data_for_inspect_is_held_to_the_model(tmp_path: Path) -> None:
    report = inspect(saved(tmp_path, tiny.conv_bn()), input_data=np.zeros((2, 3, 6, 6), np.float32))
    assert report.plan is not None
    with pytest.raises(UsageError, match=r"input 'x' is .x3x6x6, and the data given has 2x3x32"):
        inspect(tmp_path / "model.onnx", input_data=np.zeros((2, 3, 32), np.float32))
