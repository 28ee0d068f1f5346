"""Signals that ask for an end: Ctrl-C, SIGTERM and SIGHUP all unwind the stack, so that nothing is left behind.

Python turns Ctrl-C into KeyboardInterrupt and lets the other two kill the process where it stands. `take` makes all
three a kind of KeyboardInterrupt, so that whoever takes Ctrl-C well takes them well. `shielded` puts them off for a
moment: a clean-up or a change of two files that is interrupted half-way is what they must not leave. An exception that
meets a destructor is lost, whatever it is; so what arrived is remembered, and `check` raises it again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from bnfold.wording import one_line

INTERRUPTED = 130
WORDS = {130: "interrupted", 143: "terminated", 129: "hung up"}  # by exit code: 128 and the signal's number
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


_arrived: list[int] = []


@dataclass
class _Work:
    """What is being done, for whoever interrupts it."""

    step: str = ""
    written: list[str] = field(default_factory=list)
    certain: bool = False


_work = _Work()


class Stopped(KeyboardInterrupt):
    """A signal asked for an end."""


def take() -> None:
    """Lets signals unwind the stack; one that is ignored (nohup) stays ignored, and so does somebody else's handler."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)


def check() -> None:
    """Raises what arrived before, if it did not end the work then: it was lost in a destructor.

    Raises:
        Stopped: A signal had asked for an end.
    """
    if _arrived:
        raise Stopped


def exit_code() -> int:
    """The exit code of work that was interrupted, whatever libraries made of the exception on its way."""
    return 128 + _arrived[0] if _arrived else INTERRUPTED


def begin(*, certain: bool = True) -> None:
    """Begins work whose interruption says where it was.

    Args:
        certain: Whether every file that is put into its place is told here (`placed`), not in another process.
    """
    _work.step, _work.certain = "", certain
    _work.written.clear()


def doing(step: str) -> None:
    """The work has come to a step, like `"verifying"`."""
    _work.step = step


def placed(path: str) -> None:
    """A file is in its place, and stays there whatever happens."""
    _work.written.append(path)


def words(code: int) -> str:
    """What is said of work that was interrupted: where it was, and what was written by then."""
    said = f"{WORDS[code]} while {_work.step}" if _work.step else WORDS[code]
    if _work.written:
        verb = "was" if len(_work.written) == 1 else "were"
        return one_line(f"{said}; {' and '.join(_work.written)} {verb} written")
    return f"{said}; nothing was written" if _work.certain else said


@contextmanager
def shielded() -> Iterator[None]:
    """Puts signals off until the context has ended. What is inside must be short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {}
    try:
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, lambda number, frame: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(arrived):
            signal.raise_signal(number)


def _stop(number: int, frame: FrameType | None) -> None:
    _arrived.append(number)
    raise Stopped
