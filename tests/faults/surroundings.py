"""Places and terminals in which a run has to do without something; each is real, none is patched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from faults.processes import ROOT, Ended
from faults.runs import save_model

FULL = "-osize=64k head -c 1m /dev/zero > place/filler 2> /dev/null || true"  # to the last page
PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def bnfold(
    folder: Path, *arguments: str, before: str = "", more: Mapping[str, str] | None = None, after: str = ""
) -> Ended:
    """Runs a command through the shell.

    Args:
        folder: Where.
        arguments: Of the command.
        before: What the shell does first.
        more: Variables of the environment.
        after: What the shell does with its output.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(more or {})}
    line = f'{before} "$0" -m bnfold "$@" {after}'
    command: Sequence[str] = ["bash", "-c", line, sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=120, check=False, errors="surrogateescape"
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def mounted(folder: Path, options: str, *arguments: str) -> Ended:
    """Runs a command in whose folder `place` a file system with these options is mounted, for the command alone.

    What lies in `place` is copied there first, and back at the end.
    """
    script = f"""
        set -e
        cp -r place kept; mount -t tmpfs {options.split()[0]} tmpfs place; cp -r kept/. place/
        {" ".join(options.split()[1:])}
        set +e
        "$0" -m bnfold "$@"; code=$?
        mkdir left; cp -a place/. left/
        exit $code
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", script, sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def can_mount() -> bool:
    """Whether a file system can be mounted here."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def prepare(folder: Path, name: str = "out.onnx") -> None:
    """An unfolded model, and a folder `place` with an earlier output."""
    (folder / "place").mkdir(parents=True)
    save_model(folder, "in.onnx", 2.0)
    save_model(folder / "place", name, 1.0)
