"""A measurement in a process of its own: whatever goes wrong there costs one row of a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 1800
WORKER = "--worker"


def run(script: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """Has a script that calls `serve` do a task; its result, or `{"error": words}`."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "task.json", Path(folder) / "result.json"
        given.write_text(json.dumps(task))
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, str(script), WORKER, str(given), str(found)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {LIMIT_S} s"}
        if done.returncode == 0 and found.is_file():
            result: dict[str, Any] = json.loads(found.read_text())
            return result
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": (said[-1] if said else f"the process ended with status {done.returncode}").strip()[:300]}


def serve(measure: Callable[[Mapping[str, Any]], dict[str, Any]]) -> bool:
    """Does the task that the command line names, if it names one; whether it did."""
    if sys.argv[1:2] != [WORKER]:
        return False
    given, found = sys.argv[2:]
    Path(found).write_text(json.dumps(measure(json.loads(Path(given).read_text()))))
    return True
