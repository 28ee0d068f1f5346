"""How long calls take: rounds in random order, so that what the machine does meanwhile hits all calls alike.

On a CPU a call is timed by the clock on the wall. On CUDA a call only queues its work, so a pair of events on the
device's stream is timed instead (`bnfold.running.cuda`), and the device is kept busy for a while before, until its
clocks are up.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.quiet import quiet

Call = Callable[[], Any]
Stopwatch = Callable[[Call, int], float]
"""Seconds per call, of a call that is made a number of times."""

MIN_ROUNDS = 10
MAX_ROUNDS = 5000
BLOCK_S = 0.001  # a single timing lasts at least this long, by repeating the call
FIRST_CALLS = 2  # after the one that started it, which compiled, planned memory and packed weights


def wall_seconds(call: Call, repeats: int) -> float:
    """Seconds per call by the clock on the wall; right for calls that return when their work is done."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def time_rounds(
    calls: Sequence[Call],
    *,
    min_time: float,
    seed: int,
    min_rounds: int = MIN_ROUNDS,
    progress: Callable[[float], None] = lambda done: None,
    stopwatch: Stopwatch = wall_seconds,
    spin_up: float = 0.0,
) -> NDArray[np.float64]:
    """Seconds per call, float64[rounds, calls]; the order within each round is random.

    The garbage collector rests meanwhile, as it would hit one call of a round and not the others.

    Args:
        calls: What to time.
        min_time: Seconds to go on for; there are `MAX_ROUNDS` at most.
        seed: Of the order.
        min_rounds: Number of rounds whatever they take.
        progress: Called with the part done, 0 to 1.
        stopwatch: How a call is timed.
        spin_up: Seconds to make the calls for, untimed, before the first round.
    """
    rng = np.random.default_rng(seed)
    once = [_warm_up(calls[which], stopwatch) for which in rng.permutation(len(calls))]
    repeats = max(1, math.ceil(BLOCK_S / min(once)))
    rounds: list[list[float]] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        _spin_up(calls, stopwatch, repeats, spin_up)
        start = time.perf_counter()
        spent = 0.0
        while len(rounds) < min_rounds or (spent < min_time and len(rounds) < MAX_ROUNDS):
            taken = [0.0] * len(calls)
            for which in rng.permutation(len(calls)):
                taken[which] = stopwatch(calls[which], repeats)
            rounds.append(taken)
            spent = time.perf_counter() - start
            progress(min(1.0, spent / min_time, len(rounds) / min_rounds))
    finally:
        if collecting:
            gc.enable()
    return np.array(rounds)


def _warm_up(call: Call, stopwatch: Stopwatch) -> float:
    """The fastest of the first calls, in seconds."""
    with quiet():
        return min(stopwatch(call, 1) for _ in range(FIRST_CALLS))


def _spin_up(calls: Sequence[Call], stopwatch: Stopwatch, repeats: int, seconds: float) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for call in calls:
            stopwatch(call, repeats)
