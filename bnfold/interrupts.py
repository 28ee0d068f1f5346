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
from types import FrameType

INTERRUPTED = 130
WORDS = {130: "interrupted", 143: "terminated", 129: "hung up"}  # by exit code: 128 and the signal's number
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


_arrived: list[int] = []


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
