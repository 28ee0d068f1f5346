"""A measurement in a process of its own: whatever goes wrong there costs one row of a table."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 1800
WORKER = "--worker"

Task = Mapping[str, Any]
Keep = Callable[[Task, dict[str, Any]], None]


def run(script: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """Has a script that calls `serve` do a task; its result, or `{"error": words}`."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "task.json", Path(folder) / "result.json"
        given.write_text(json.dumps(task))
        command = [sys.executable, str(script), WORKER, str(given), str(found)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=_environment()
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {LIMIT_S} s"}
        if done.returncode == 0 and found.is_file():
            result: dict[str, Any] = json.loads(found.read_text())
            return result
        return {"error": _last_line(done.stderr, done.returncode)}


def serve(measure: Callable[[Mapping[str, Any]], dict[str, Any]]) -> bool:
    """Does the task that the command line names, if it names one; whether it did."""
    if sys.argv[1:2] != [WORKER]:
        return False
    given, found = sys.argv[2:]
    Path(found).write_text(json.dumps(measure(json.loads(Path(given).read_text()))))
    return True


def run_many(
    script: Path,
    tasks: Sequence[Task],
    keep: Keep,
    *,
    limit_s: float,
    budget_s: float,
) -> int:
    """Has a script that calls `serve_many` do tasks one after the other in one process, which saves its start-up.

    A task that fails, takes longer than `limit_s`, or ends the process, costs its own result: the others go on in a
    new one.

    Args:
        script: The script.
        tasks: What to do, in this order.
        keep: Called with each task and its result, or `{"error": words}`, as soon as it is there.
        limit_s: Seconds a task may take, with the start of the process.
        budget_s: Seconds all of them may take.

    Returns:
        How many tasks there was no time for.
    """
    end = time.monotonic() + budget_s
    left = list(tasks)
    while left and time.monotonic() < end:
        done, why = _some(script, left, keep, limit_s, end)
        left = left[done:]
        if left and why:
            keep(left.pop(0), {"error": why})
    return len(left)


def _some(script: Path, tasks: Sequence[Task], keep: Keep, limit_s: float, end: float) -> tuple[int, str]:
    """One process: how many tasks it did, and why the next one has no result; no words where time was up."""
    with tempfile.TemporaryDirectory() as folder:
        given, found, said = (Path(folder) / name for name in ("tasks.json", "results.jsonl", "stderr"))
        given.write_text(json.dumps(list(tasks)))
        found.touch()
        with said.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(script), WORKER, str(given), str(found)],
                env=_environment(),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        done, since, why = 0, time.monotonic(), ""
        try:
            while True:
                running = process.poll() is None  # asked before reading, so that nothing written last is missed
                for line in found.read_text().splitlines(keepends=True)[done:]:
                    if not line.endswith("\n"):
                        break
                    keep(tasks[done], json.loads(line))
                    done, since = done + 1, time.monotonic()
                if not running or done == len(tasks):
                    ended_well = process.returncode == 0 and done > 0
                    why = "" if ended_well else _last_line(said.read_text(), process.returncode or 0)
                    break
                if time.monotonic() > end:
                    break
                if time.monotonic() - since > limit_s:
                    why = f"not done after {limit_s:g} s"
                    break
                time.sleep(0.1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its compilers, too
            process.wait()
    return done, why


def serve_many(measure: Callable[[Task], dict[str, Any]]) -> bool:
    """Does the tasks that the command line names, if it names any; whether it did.

    A task that fails is the last one of this process, as it may have left the device unusable.
    """
    if sys.argv[1:2] != [WORKER]:
        return False
    given, found = sys.argv[2:]
    with Path(found).open("a") as results:
        for task in json.loads(Path(given).read_text()):
            try:
                result = measure(task)
            except Exception as error:
                result = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
            results.write(json.dumps(result) + "\n")
            results.flush()
            if "error" in result:
                break
    return True


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _last_line(stderr: str, status: int) -> str:
    said = [line for line in stderr.splitlines() if line.strip()]
    return (said[-1] if said else f"the process ended with status {status}").strip()[:300]
