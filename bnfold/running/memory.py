"""The largest amount of memory that a piece of work takes, in this process.

Linux keeps the peak of a process's resident size and forgets it when told to (`proc(5)`, `clear_refs`). What is free is
given back before (`malloc_trim`), so that memory which earlier work left behind does not hide what new work takes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnfold.heap import give_back

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """A context that measures what is taken inside it beyond what the process holds at its start.

    Attributes:
        bytes: The peak; None until it ends, and where the system does not tell.
    """

    def __init__(self) -> None:
        self.bytes: int | None = None
        self._start: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        give_back()
        self._start = resident("VmRSS") if _forget_peak() else None
        return self

    def __exit__(self, *_: object) -> None:
        peak = resident("VmHWM")
        if self._start is not None and peak is not None:
            self.bytes = max(0, peak - self._start)


def peak_bytes(call: Callable[[], Any]) -> int | None:
    """The largest amount of memory that a call takes; None where the system does not tell."""
    with PeakMemory() as peak:
        call()
    return peak.bytes


def resident(which: str) -> int | None:
    """`VmRSS` or `VmHWM` of this process, in bytes; None where the system does not tell."""
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{which}:")]
    return 1024 * int(found[0]) if found else None


def _forget_peak() -> bool:
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True
