"""The workflow and the hook of examples/ci do what they say, with the commands that stand in them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny
import yaml

ROOT = Path(__file__).resolve().parent.parent
CI = ROOT / "examples" / "ci"


def said_in(name: str) -> Any:
    return yaml.safe_load((CI / name).read_text(encoding="utf-8"))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One model whose BatchNorm can go, and one where it cannot."""
    (tmp_path / "onnx").mkdir()
    onnx.save(tiny.conv_bn(), tmp_path / "onnx" / "good.onnx")
    onnx.save(tiny.bn_relu(), tmp_path / "onnx" / "kept.onnx")
    return tmp_path


def workflow() -> str:
    [step] = [
        step for step in said_in("github-workflow.yml")["jobs"]["fold"]["steps"] if "Fold" in step.get("name", "")
    ]
    text = str(step["run"])
    assert "speedup.low<0.9" in text
    return text.replace("speedup.low<0.9", "speedup.low<0.0001").replace("--bench", "--bench --min-time 0.05")


def test_the_workflow_fails_for_a_model_that_keeps_a_batchnorm(folder: Path) -> None:
    done = run(["bash", "-e", "-c", workflow()], folder)
    assert done.returncode == 1
    assert "kept>0" in done.stderr
    counts = {path.stem: json.loads(path.read_text())["counts"]["kept"] for path in (folder / "reports").iterdir()}
    assert counts == {"good": 0, "kept": 1}
    assert [path.name for path in (folder / "folded").glob("*.onnx")] == ["good.onnx"]


def test_the_workflow_passes_without_it(folder: Path) -> None:
    (folder / "onnx" / "kept.onnx").unlink()
    done = run(["bash", "-e", "-c", workflow()], folder)
    assert done.returncode == 0, done.stderr


def test_the_hook_looks_at_every_file_and_writes_nothing(folder: Path) -> None:
    [hook] = said_in("pre-commit-config.yaml")["repos"][0]["hooks"]
    before = sorted(folder.rglob("*"))
    good = run([*shlex.split(hook["entry"]), "onnx/good.onnx", "onnx/good.onnx"], folder)
    assert good.returncode == 0, good.stderr
    kept = run([*shlex.split(hook["entry"]), "onnx/good.onnx", "onnx/kept.onnx"], folder)
    assert kept.returncode == 1
    assert "kept>0" in kept.stderr
    assert sorted(folder.rglob("*")) == before
