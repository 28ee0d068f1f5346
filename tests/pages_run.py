"""The code that stands in the documents, and a folder that holds what a clone holds.

A fenced block of `console` holds commands behind `$ `, a block of `python` a piece of a program; the pieces of one
document are one program. What stands under a command is what it prints: each line must be found in what it prints, in
that order, and `...` stands for anything. A block of `sh` holds commands alone, to be pasted, and `text output` behind
it what the last of them prints. Nothing else stands ready: what a command reads lies in the clone, or an earlier block
of the page has written it.
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
INSTALLING = ("python -m venv ", "pip install ")  # what an `sh` block begins with, and the tests have behind them
CONVERT = re.compile(r"""bnfold\.convert\(\s*"[^"]*",\s*"([^"]*)"[^)]*\)""")
CLONED = ("README.md", "constraints.txt", "docs", "examples", "models", "pyproject.toml")


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
    if block.kind == "sh":
        yield from ((line, []) for line in block.text.splitlines() if not line.startswith(INSTALLING))
        return
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


def written(block: Block) -> set[str]:
    """The files a block writes that bnfold does not replace unasked."""
    named = set()
    for command in block.text.replace("\\\n", " ").splitlines() if block.kind in ("console", "sh") else ():
        words = command.removeprefix("$ ").split()
        if words[:2] != ["bnfold", "convert"] or "--force" in words:
            continue
        default = f"{words[2].rpartition('.')[0]}.folded.onnx"
        named.add(words[words.index("-o") + 1] if "-o" in words else default)
    if block.kind == "python":
        named |= {call[1] for call in CONVERT.finditer(block.text) if "force=True" not in call[0]}
    return named


def clone(folder: Path) -> None:
    """Puts into a folder what the pages speak of in a fresh clone: what git keeps, and nothing that was made of it."""
    kept = subprocess.run(["git", "ls-files", "-z", *CLONED], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in kept.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
