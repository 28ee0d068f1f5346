"""What a model costs before it answers: the time until it is loaded, that of its first run, and the memory of both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from numpy.typing import NDArray

from bnfold.running.memory import PeakMemory
from bnfold.running.runners import Runner
from bnfold.running.timing import Call, Stopwatch


@dataclass(frozen=True)
class Startup:
    """What one model costs before it answers.

    Attributes:
        load_ms: Until it is loaded, in milliseconds; None where there is nothing to load.
        first_ms: Its first run.
        peak_bytes: The largest amount of memory that loading and running took, or holding and running where there is
            nothing to load; None where that is not known.
    """

    load_ms: float | None
    first_ms: float
    peak_bytes: int | None


Started = tuple[Call, Startup]
Starter = Callable[[], Started]
"""Starts a model anew: what does one inference of it, and what it cost until then."""


def start_session(make: Callable[[], Runner], feeds: Mapping[str, NDArray[Any]]) -> Started:
    """Loads a model and runs it once."""
    with PeakMemory() as peak:
        begun = time.perf_counter()
        runner = make()
        loaded = time.perf_counter()
        runner.run(feeds)
        done = time.perf_counter()
    return runner.prepared(feeds), Startup(1e3 * (loaded - begun), 1e3 * (done - loaded), peak.bytes)


def start_network(
    make: Callable[[], Runner],
    feeds: Mapping[str, NDArray[Any]],
    stopwatch: Stopwatch,
    weights: int,
    peak_of: Callable[[Call], int | None],
) -> Started:
    """Calls a copy of a network once, and once more to see what memory that takes beyond its weights."""
    call = make().prepared(feeds)
    first = stopwatch(call, 1)
    peak = peak_of(call)
    return call, Startup(None, 1e3 * first, None if peak is None else weights + peak)


def typical(starts: Sequence[Startup]) -> Startup:
    """The medians of the times, and the largest of the peaks."""
    loads = [start.load_ms for start in starts if start.load_ms is not None]
    peaks = [start.peak_bytes for start in starts if start.peak_bytes is not None]
    return Startup(
        median(loads) if loads else None, median(start.first_ms for start in starts), max(peaks, default=None)
    )
