"""Signals that ask for an end: Ctrl-C, SIGTERM and SIGHUP all unwind the stack, so that nothing is left behind.

Python turns Ctrl-C into KeyboardInterrupt and lets the other two kill the process where it stands. `take` makes them a
kind of KeyboardInterrupt, so that whoever takes Ctrl-C well takes them well. `shielded` puts all three off for a
moment: a clean-up or a change of two files that is interrupted half-way is what they must not leave.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
WORDS = {130: "interrupted", 143: "terminated", 129: "hung up"}  # by exit code: 128 and the signal's number
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asked for an end.

    Args:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def take() -> None:
    """Lets SIGTERM and SIGHUP unwind the stack; one that is ignored (nohup) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def exit_code(error: BaseException | None) -> int:
    """The exit code of what ended the work, which libraries may have wrapped in an exception of theirs."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Stopped):
            return error.exit_code
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return INTERRUPTED


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
    raise Stopped(number)
