"""Sets the stage for every attack."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from stage import SECRET, Attack

ARCH = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
"""


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """Libraries start processes and open files when they are imported; that is not what is looked for."""
    import onnxruntime  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch

    import bnfold.frontends.onnx
    import bnfold.pipeline.line
    import bnfold.reporting.report
    import bnfold.tracing.capture

    bnfold.reporting.report.environment()
    with contextlib.suppress(Exception):
        torch.load(os.devnull, weights_only=True)


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Attack:
    """A folder with the code of a network, and a secret outside it."""
    made = Attack(tmp_path, capsys)
    made.folder.mkdir()
    made.secret.write_text(SECRET * 100)
    made.write("nets.py", ARCH)
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    return made
