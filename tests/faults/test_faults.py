"""Every fault at every step of every writer; the campaigns are shown able to fail."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from bnfold.writing import staging
from faults.campaign import ERRORS, SIGNALS, Outcome, failing_calls, failing_memory, killed, signalled
from faults.injection import lines
from faults.writers import LIGHT, TORCH, Writer

# A line that fails between the opening of a file and its `with` leaves it to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WRITERS = [pytest.param(writer, id=writer.name) for writer in (*LIGHT, *TORCH)]


def check(outcome: Outcome) -> None:
    assert outcome.problems == []
    assert outcome.old > 0
    assert outcome.old + outcome.new > 10


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_an_error_of_the_disk_leaves_the_old_output_or_the_new_one(writer: Writer, error: str, lasting: bool) -> None:
    check(failing_calls(writer, error, lasting=lasting))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_at_any_call_leaves_the_old_output_or_the_new_one(writer: Writer, name: str) -> None:
    check(signalled(writer, name))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_ctrl_c_at_any_line_leaves_the_old_output_or_the_new_one(writer: Writer) -> None:
    check(signalled(writer, "SIGINT", lines, every=3))


@pytest.mark.parametrize("writer", WRITERS)
def test_the_end_of_memory_at_any_line_leaves_the_old_output_or_the_new_one(writer: Writer) -> None:
    check(failing_memory(writer))


@pytest.mark.parametrize("writer", [pytest.param(writer, id=writer.name) for writer in LIGHT])
def test_a_kill_at_any_call_leaves_the_old_output_or_the_new_one(writer: Writer) -> None:
    check(killed(writer))


def careless(folder: Path, new: bool) -> None:
    """Writes over the old output, as one would."""
    target = folder / "out"
    target.unlink(missing_ok=True)
    with staging.reported("out"):
        staging.save(str(target), [b"new" if new else b"old"])


def test_a_writer_that_writes_over_its_output_is_caught() -> None:
    found = failing_calls(Writer("careless", careless, "out"), "ENOSPC", lasting=False).problems
    assert any("left ['out']" in problem for problem in found)


def test_data_that_has_one_name_for_all_models_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnfold.writing.onnxwrite.data_name", lambda target, digest: "out.onnx.data")
    assert any("left" in problem for problem in killed(LIGHT[1]).problems)


def test_a_file_that_stays_behind_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.rmtree

    def rmtree(path: str | Path, **more: bool) -> None:
        if ".bnfold-" not in str(path) or sys.exc_info()[0] is None:
            real(path, **more)

    monkeypatch.setattr(staging.shutil, "rmtree", rmtree)
    assert any(".bnfold-" in problem for problem in failing_calls(LIGHT[0], "EIO", lasting=False).problems)
