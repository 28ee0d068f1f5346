"""Makes one step of a writer fail: a call of the operating system, or a line of our own.

Steps are counted, so that a fault can be put at each of them in turn: first an undisturbed run counts them, then there
is one run per step. What clears up (unlink, rmdir) is no step: a disk that takes no more still lets files go.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bnfold.writing import files, staging

Act = Callable[[int, str], None]

CALLS = ("mkdir", "open", "fsync", "replace", "rename", "chmod", "listdir")
OURS = ("bnfold.", "tempfile")
CLEANING = {"temporary_folder", "shielded", "locked", "_remove_stale", "_stop"}
TRACED = tuple(
    f"{os.sep}writing{os.sep}{name}.py" for name in ("export", "files", "onnxwrite", "staging", "torchexport")
)


class Steps:
    """The calls of the operating system that a writer makes, each announced before it is made.

    Args:
        act: Called with the number and the name of each step.
    """

    def __init__(self, act: Act) -> None:
        self.act = act
        self.count = 0

    def announce(self, name: str) -> None:
        """Says that a step is about to be made."""
        self.count += 1
        self.act(self.count, name)

    @contextmanager
    def watched(self) -> Iterator[Steps]:
        """Announces the calls that the modules of bnfold make."""
        real = {name: getattr(os, name) for name in CALLS}

        def patched(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if sys._getframe(1).f_globals["__name__"].startswith(OURS):
                    self.announce(name)
                return real[name](*args, **kwargs)

            return call

        def opened(path: Any, mode: str = "r", **kwargs: Any) -> Any:
            self.announce(f"open to {'read' if 'r' in mode else 'write'}")
            return _File(builtins.open(path, mode, **kwargs), self)

        for name in CALLS:
            setattr(os, name, patched(name))
        for module in (files, staging):
            module.open = opened  # type: ignore[attr-defined]
        try:
            yield self
        finally:
            for name in CALLS:
                setattr(os, name, real[name])
            for module in (files, staging):
                del module.open  # type: ignore[attr-defined]


class _File:
    """A file whose reads and writes are steps."""

    def __init__(self, file: Any, steps: Steps) -> None:
        self._file, self._steps = file, steps

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> Any:
        self._steps.announce("read")
        return self._file.read(size)

    def write(self, data: Any) -> Any:
        self._steps.announce("write")
        self._file.write(memoryview(data)[: len(data) // 2])  # what fails later, fails in the middle
        self._steps.announce("write")
        return self._file.write(memoryview(data)[len(data) // 2 :])

    def flush(self) -> None:
        self._steps.announce("flush")
        self._file.flush()

    def fileno(self) -> int:
        return int(self._file.fileno())


@contextmanager
def lines(act: Act) -> Iterator[None]:
    """Announces every line of the modules that write, before it is run; not of those that clear up."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        if event == "line" and not _is_clearing_up(frame):
            count += 1
            act(count, f"{frame.f_code.co_name}:{frame.f_lineno}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _is_clearing_up(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in CLEANING:
            return True
        frame = frame.f_back
    return False
