"""The other side of `isolation`: what the process does that was started to do a command's work."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from bnfold.errors import BnfoldError, InternalError, LimitError
from bnfold.pipeline.isolation import GRACE_S
from bnfold.wording import first_line

SCARCE = ("can't allocate memory", "bad_alloc", "failed to allocate memory", "not enough memory", "unable to allocate")
REPORTED = "This is a mistake in bnfold; please report it with the output of the same command and -vv."


def child(handle: int) -> None:
    """What the other process does: reads the request, limits itself, works, and says what it found."""
    pipe = Connection(handle)
    command, arguments, memory, seconds = pickle.loads(pipe.recv_bytes())
    _limit(memory, seconds)
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    lock = threading.Lock()

    def say(*message: Any) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send(message)

    from bnfold.pipeline import line as pipeline

    try:
        try:
            found = getattr(pipeline, command)(**arguments, progress=lambda stage, done: say("progress", stage, done))
            say("report", found)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            say("error", *_described(error, memory))
    except KeyboardInterrupt:  # also from a caller that has read the error, and does not wait
        os._exit(130)
    os._exit(0)  # threads of runtimes are not waited for


def _described(error: BaseException, memory: int) -> tuple[str, str, str, str]:
    trace = "".join(traceback.format_exception(error))
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 20:
        chain.append(f"{type(cause).__name__} {cause}".lower())
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, MemoryError) or any(sign in text for text in chain for sign in ("memoryerror", *SCARCE)):
        return (
            LimitError.__name__,
            f"it needs more than {memory} bytes of memory",
            "Give it more: --max-memory SIZE.",
            trace,
        )
    if isinstance(error, BnfoldError):
        return type(error).__name__, error.what, error.hint, trace
    return InternalError.__name__, first_line(error), REPORTED, trace


def _limit(memory: int, seconds: float) -> None:
    """Limits this process: memory that it may write to, and, where the parent is gone, processor time."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory if most < 0 else min(memory, most), most))
    processor = int(seconds * (os.cpu_count() or 1) + GRACE_S) + 1
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (processor if most < 0 else min(processor, most), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_parent(pipe: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        pipe.recv_bytes()
    os.kill(os.getpid(), signal.SIGINT)
