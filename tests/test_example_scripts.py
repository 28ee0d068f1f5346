"""The scripts of examples/ run as they stand, on the models of this repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

RUNS: dict[str, tuple[list[str], list[str], set[str]]] = {
    "fold_then_compile": (
        ["--backend", "eager", "--min-time", "0.05"],
        ["17 BatchNorms, 0 left", "compiled, largest difference: ", "torch: "],
        set(),
    ),
    "export_unfolded": ([], ["model.onnx: 17 BatchNorms in "], {"model.onnx"}),
    "fold_in_an_export_pipeline": (
        [],
        [
            "blocks.0.body.0 stays: the only absorber pads with zeros",
            "the ONNX file is the same function: True",
            "written to exported",
        ],
        {"exported", "iresnet.pt2", "iresnet.onnx"},
    ),
    "fold_then_quantise": (
        ["out"],
        ["float32: 99.0% right, int8: 99.0% right", "BatchNorms in the int8 model: 0", "written to out"],
        {"out", "folded.onnx", "folded.int8.onnx"},
    ),
}


def test_no_example_needs_an_argument() -> None:
    for path in EXAMPLES:
        asked = subprocess.run(
            [sys.executable, str(path), "--help"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        usage = re.sub(r"\[[^][]*\]", "", asked.stdout.partition("\n\n")[0])
        assert usage.split() == ["usage:", path.name], asked.stdout


def test_every_example_is_run_and_linked() -> None:
    assert {path.stem for path in EXAMPLES} == set(RUNS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"(examples/{path.name})" in readme for path in EXAMPLES)


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    arguments, lines, written = RUNS[name]
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()
    assert len(found) == len(lines), done.stdout
    for line, start in zip(found, lines, strict=True):
        assert line.startswith(start)
    assert written <= {path.name for path in tmp_path.rglob("*")}
