"""A TorchScript archive is a program."""

from __future__ import annotations

import io

import hostile_pickles as hp
import pytest
import torch
from stage import Attack


def test_torchscript(attack: Attack) -> None:
    buffer = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(hp.network()), buffer)
    attack.write("model.onnx", buffer.getvalue())
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: model.onnx is a TorchScript archive, which is a program\n"
            "Only if you trust whoever made it, pass --trust-pickle: that runs what the file holds.\n"
        ),
    )
