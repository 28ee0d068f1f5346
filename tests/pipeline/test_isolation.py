"""Work in a process of its own: the same reports, errors and progress, and limits that hold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
import tiny

import bnfold
from bnfold.errors import LimitError, UnreadableError, UsageError
from bnfold.pipeline.isolated import _described
from bnfold.pipeline.isolation import Limits, _ended

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(tiny.conv_bn(), "model.onnx")


def test_the_report_is_the_same_and_progress_is_told() -> None:
    told: list[str] = []
    report = bnfold.convert("model.onnx", isolate=Limits(), progress=lambda stage, done: told.append(stage))
    assert report.passed
    assert Path("model.folded.onnx").exists()
    assert list(dict.fromkeys(told))[:2] == ["loading", "folding"]
    here, there = bnfold.convert("model.onnx", "here.onnx").to_dict(), report.to_dict()
    assert here["counts"] == there["counts"]
    assert here["output"]["sha256"] == there["output"]["sha256"]


def test_errors_are_the_same_and_keep_their_traceback() -> None:
    with pytest.raises(UnreadableError) as caught:
        bnfold.convert("absent.onnx", isolate=Limits())
    assert str(caught.value) == "error[UNREADABLE]: there is no file absent.onnx\nCheck the path."
    assert "in the isolated process\nTraceback" in str(caught.value.__cause__)


def test_arguments_that_cannot_be_sent() -> None:
    with pytest.raises(UsageError) as caught:
        bnfold.convert("model.onnx", data=lambda: [], isolate=Limits())  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith("error[USAGE]: the arguments cannot be sent to another process: ")
    assert message.endswith("\nName data and metrics as pkg.mod:name, or work without isolate.")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(seconds=0), "isolate=bnfold.Limits(seconds=0) is no time\nPass a positive number of seconds."),
        (
            Limits("much"),
            "isolate=bnfold.Limits(memory='much') is no number of bytes\nWrite it like 500MB, 8GB or 8000000000.",
        ),
    ],
)
def test_limits_that_are_none(limits: Limits, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        bnfold.convert("model.onnx", isolate=limits)
    assert str(caught.value) == f"error[USAGE]: {words}"


def test_want_of_memory_is_a_limit_wherever_it_is_found() -> None:
    for error in (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")):
        outer = ValueError("something else")
        outer.__cause__ = error
        for seen in (error, outer):
            kind, what, _, _ = _described(seen, 500)
            assert (kind, what) == ("LimitError", "it needs more than 500 bytes of memory")
    assert _described(ValueError("x"), 500)[:2] == ("InternalError", "ValueError: x")


def test_a_process_that_ends_is_a_limit() -> None:
    assert isinstance(_ended(-signal.SIGKILL), LimitError)
    assert _ended(-signal.SIGKILL).what == (
        "the process that did the work ended by SIGKILL, as it does where memory is short or a library fails"
    )
    assert _ended(3).what.startswith("the process that did the work ended with 3,")


def test_ctrl_c_ends_the_process_as_well() -> None:
    """The child is in a session of its own: only the parent hears of Ctrl-C, and passes it on."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, "-m", "bnfold", "bench", "model.onnx", "--isolate", "--min-time", "60"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    children: list[str] = []
    while not children:
        assert run.poll() is None
        time.sleep(0.05)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    time.sleep(2)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert (run.returncode, out) == (130, b"")
    assert re.fullmatch(rb"interrupted( while [a-z]+)?\n", err)  # what the other process had written is not known here
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_caller_that_does_not_wait_for_the_end_gets_no_traceback() -> None:
    code = """
import pickle, signal
from bnfold.pipeline import isolated

class Pipe:
    def __init__(self, handle):
        self.requests = [pickle.dumps(("inspect", {"model": "absent.onnx"}, 1 << 40, 60.0))]
    def recv_bytes(self):
        return self.requests.pop() if self.requests else signal.pause()
    def send(self, message):
        if message[0] == "error":
            raise KeyboardInterrupt

isolated.Connection = Pipe
isolated._end_with_parent = lambda pipe: None
isolated.child(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
