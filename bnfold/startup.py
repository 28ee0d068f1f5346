"""What a model costs before it answers: the time until it is loaded, that of its first run, and the memory of both.

A session of onnxruntime is made anew for this, after all others were, so that libraries, threads and the file cache are
as warm for the first model as for the second. A PyTorch network is there already; its first call is the first that this
process makes of it, with what `torch.compile` compiles then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from numpy.typing import NDArray

from bnfold.memory import PeakMemory
from bnfold.runners import Runner

TIMES = 3
ENOUGH_S = 1.0  # models that take this long to start are started once


@dataclass(frozen=True)
class Startup:
    """What one model costs before it answers.

    Attributes:
        load_ms: Until it is loaded, in milliseconds; None where there is nothing to load.
        first_ms: Its first run.
        peak_bytes: The largest amount of memory that loading and running took, or holding and running where there is
            nothing to load; None where the system does not tell.
    """

    load_ms: float | None
    first_ms: float
    peak_bytes: int | None


def started(makers: Sequence[Callable[[], Runner]], feeds: Mapping[str, NDArray[Any]]) -> list[Startup]:
    """Starts each model a few times, in turn: medians of the times, and the largest of the peaks.

    Args:
        makers: Each loads a model anew.
        feeds: What it is run on.
    """
    found: list[list[Startup]] = [[] for _ in makers]
    for _ in range(TIMES):
        begun = time.perf_counter()
        for make, starts in zip(makers, found, strict=True):
            starts.append(_start(make, feeds))
        if time.perf_counter() - begun > ENOUGH_S:
            break
    return [_typical(starts) for starts in found]


def _start(make: Callable[[], Runner], feeds: Mapping[str, NDArray[Any]]) -> Startup:
    with PeakMemory() as peak:
        begun = time.perf_counter()
        runner = make()
        loaded = time.perf_counter()
        runner.run(feeds)
        done = time.perf_counter()
    return Startup(1e3 * (loaded - begun), 1e3 * (done - loaded), peak.bytes)


def _typical(starts: Sequence[Startup]) -> Startup:
    peaks = [start.peak_bytes for start in starts if start.peak_bytes is not None]
    return Startup(
        median(start.load_ms for start in starts if start.load_ms is not None),
        median(start.first_ms for start in starts),
        max(peaks, default=None),
    )
