"""The code that stands in the documents, and a folder in which all of it can run.

A fenced block of `console` holds commands behind `$ `, a block of `python` a piece of a program; the pieces of one
document are one program. What stands under a command is what it prints: each line must be found in what it prints, in
that order, and `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnfold.cli.app import main

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "_generated")
PAGES = (ROOT / "README.md", ROOT / "models" / "README.md", *DOCS)
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = {"text", "yaml", "toml", "json", "mermaid"}  # pictures and files, which other tests read


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: What stands behind its fence.
        text: What stands in it.
        line: The line of the document it begins at.
    """

    kind: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a document."""
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, and the lines each is said to print."""
    command, printed = "", []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line[2:], []
        elif line.strip():
            printed.append(line)
    if command:
        yield command, printed


def prints(said: list[str], output: str) -> str:
    """The first line that is not printed as said; empty if all are."""
    at = 0
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for line in said:
        pattern = re.compile(".*?".join(re.escape(part) for part in " ".join(line.split()).split("...")))
        found = next((i for i in range(at, len(lines)) if pattern.search(lines[i])), None)
        if found is None:
            return line
        at = found + 1
    return ""


def run(command: str, folder: Path) -> tuple[int, str]:
    """Runs a command in a folder; the exit code, and what it printed."""
    words = shlex.split(command, comments=True)
    if words[0] == "bnfold" and not set("|><;&") & set(re.sub(r"'[^']*'", "", command)):
        return _bnfold(words[1:], folder)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def _bnfold(arguments: list[str], folder: Path) -> tuple[int, str]:
    printed, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(arguments)
    finally:
        os.chdir(before)
    return code, printed.getvalue()


def furnish(folder: Path) -> None:
    """Puts into a folder what the documents speak of: networks, weights, models, data."""
    import numpy as np
    import onnxsim
    import torch

    for name in ("models", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").touch()
    shutil.copy(ROOT / "models" / "architectures.py", folder / "mypackage" / "nets.py")
    shutil.copy(ROOT / "models" / "preact_resnet.pt", folder / "weights.pt")
    module = _network(folder / "models")
    example = torch.zeros(2, 1, 8, 8)
    program = torch.onnx.export(
        module,
        (example,),
        input_names=["x"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    program.save(folder / "model.onnx")
    import onnx

    simplified, _ = onnxsim.simplify(onnx.load(folder / "model.onnx"))
    onnx.save(simplified, folder / "simplified.onnx")
    with np.load(ROOT / "models" / "digits_test.npz") as digits:
        x, y = digits["x"], digits["y"]
    np.savez(folder / "test.npz", x=x, y=y)
    np.savez(folder / "deployed.npz", x=0.25 * x + 0.4, y=y)


def _network(models: Path) -> object:
    import importlib.util

    import torch

    spec = importlib.util.spec_from_file_location("documented_architectures", models / "architectures.py")
    assert spec is not None
    assert spec.loader is not None
    architectures = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = architectures
    spec.loader.exec_module(architectures)
    module = architectures.preact_resnet()
    module.load_state_dict(torch.load(models / "preact_resnet.pt", weights_only=True))
    return module.eval()
