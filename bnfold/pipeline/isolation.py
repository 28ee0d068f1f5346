"""Does a command's work in a process of its own, with limits of memory and time.

What a hostile model can still do once it is known to run no code is to ask for too much: numbers that are only made
when it runs, loops without an end, or a mistake in a library that ends the process. Then the child ends, and the caller
gets a `LimitError`. The child says over a pipe what it does and what it found; words and colours are the caller's.

It is a limit and not a sandbox: the child may read and write what the caller may.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any

from bnfold import errors
from bnfold.errors import BnfoldError, LimitError, UsageError
from bnfold.specs import parse_bytes
from bnfold.wording import first_line

if TYPE_CHECKING:
    from bnfold.reporting.report import Report

DEFAULT_SECONDS = 600.0
GRACE_S = 5.0  # to put away what it has begun, before it is killed

START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from bnfold.pipeline.isolated import child; child(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class Limits:
    """What the process may use.

    Attributes:
        memory: Bytes of memory, as a number or like `"8GB"`; None takes three quarters of the machine's.
        seconds: How long it may take.
    """

    memory: int | str | None = None
    seconds: float = DEFAULT_SECONDS

    def bytes(self) -> int:
        """The memory as a number.

        Raises:
            UsageError: It does not read.
        """
        if self.memory is not None:
            return parse_bytes("--max-memory", self.memory)
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def isolated(command: str, arguments: Mapping[str, Any]) -> Report:
    """Runs a function of the pipeline in a process of its own.

    Args:
        command: Its name.
        arguments: Its arguments; `isolate` holds the limits.

    Raises:
        LimitError: It took more than it may, or ended the process.
        UsageError: The arguments cannot be sent to another process.
        BnfoldError: As the function does.
    """
    given = dict(arguments)
    limits: Limits = given.pop("isolate")
    tell = given.pop("progress") or (lambda stage, done: None)
    if not (math.isfinite(limits.seconds) and limits.seconds > 0):
        raise UsageError(f"--max-time {limits.seconds:g} is no time", "Pass a positive number of seconds.")
    memory = limits.bytes()
    try:
        request = pickle.dumps((command, given, memory, limits.seconds))
    except Exception as error:  # what an object of the caller's raises when it is pickled is not known
        raise UsageError(
            f"the arguments cannot be sent to another process: {first_line(error)}",
            "Name data and metrics as pkg.mod:name, or work without isolate.",
        ) from error
    with _started() as (process, pipe):
        pipe.send_bytes(request)
        return _await(process, pipe, tell, limits.seconds)


@contextlib.contextmanager
def _started() -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """The child, which gets Ctrl-C from here alone, and is gone in the end."""
    import json

    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", START, str(theirs.fileno()), json.dumps(sys.path)],
        pass_fds=[theirs.fileno()],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    try:
        yield process, ours
    finally:
        _end(process)
        ours.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the child: it may clean up first."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], pipe: Connection, tell: Callable[..., None], seconds: float) -> Report:
    deadline = time.monotonic() + seconds
    while True:
        if not pipe.poll(max(deadline - time.monotonic(), 0)):
            raise LimitError(f"it took longer than {seconds:g} seconds", "Give it more: --max-time SECONDS.")
        try:
            kind, *said = pipe.recv()
        except (EOFError, ConnectionError, pickle.UnpicklingError) as error:
            raise _ended(process.wait(GRACE_S)) from error
        if kind == "progress":
            tell(*said)
        elif kind == "report":
            report: Report = said[0]
            return report
        else:
            raise _raised(*said)


def _ended(code: int) -> LimitError:
    try:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"
    except ValueError:
        how = f"with {code}"
    return LimitError(
        f"the process that did the work ended {how}, as it does where memory is short or a library fails",
        "Give it more memory: --max-memory SIZE. If that does not help, do not use the model.",
    )


def _raised(kind: str, what: str, hint: str, trace: str) -> BnfoldError:
    """An error of the child as one of here, with the child's traceback for -vv."""
    error: BnfoldError = getattr(errors, kind)(what, hint)
    error.__cause__ = RuntimeError(f"in the isolated process\n{trace}")
    return error
