"""Models are started several times, in random order, and timed each time.

Two sessions of the same bytes differ: where weights and activations came to lie decides how they fall into caches, and
that stays for the life of a session. One session of each would measure that difference as if it were one of the models,
with an interval as narrow as one likes (Mytkowicz et al., "Producing wrong data without doing anything obviously
wrong", ASPLOS 2009; Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013). So the time to measure is
split over several sessions of each model, made anew in random order; what differs between them is then part of the
interval (`speedup.session_interval`).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bnfold.benchmark.startup import Started, Starter, Startup
from bnfold.quiet import quiet
from bnfold.running.timing import MIN_ROUNDS, Stopwatch, time_rounds, wall_seconds

MOST, USUAL, FEWEST = 12, 8, 6  # times that each model is started; from 6 on there is a 95 % interval of so many
PATIENCE = 10.0  # times the time to measure that starting may take; models that start slower are started once
WARM_S = 0.05  # a device that was spun up before need only be kept warm


def time_sessions(
    starters: Sequence[Starter],
    *,
    min_time: float,
    seed: int,
    progress: Callable[[float], None] = lambda done: None,
    stopwatch: Stopwatch = wall_seconds,
    spin_up: float = 0.0,
    once: bool = False,
) -> tuple[list[NDArray[np.float64]], list[list[Startup]]]:
    """Starts all models and times them in rounds, again and again.

    Args:
        starters: One per model.
        min_time: Seconds to time for in all, starting not counted.
        seed: Of every order.
        progress: Called with the part done, 0 to 1.
        stopwatch: How a call is timed.
        spin_up: Seconds to make the calls for before the first round.
        once: Whether each model is started once only.

    Returns:
        Seconds per call, float64[rounds, models] for each time the models were started; and what starting took, for
        each model and time.
    """
    rng = np.random.default_rng(seed)
    turns = orders(len(starters), rng)
    times: list[NDArray[np.float64]] = []
    startups: list[list[Startup]] = []
    number = 1
    while len(times) < number:
        started, seconds = _start(starters, next(turns))
        startups.append([startup for _, startup in started])
        if not times and not once:
            number = how_many(seconds, min_time)

        def part(done: float, start: int = len(times), number: int = number) -> None:
            progress((start + done) / number)

        times.append(
            time_rounds(
                [call for call, _ in started],
                min_time=min_time / number,
                min_rounds=math.ceil(MIN_ROUNDS / number),
                seed=int(rng.integers(2**32)),
                progress=part,
                stopwatch=stopwatch,
                spin_up=min(spin_up, WARM_S) if times else spin_up,
            )
        )
        started.clear()  # before the next ones take their memory
    return times, [list(each) for each in zip(*startups, strict=True)]


def how_many(start_s: float, min_time: float) -> int:
    """How many times models are started that take so many seconds to start, all of them."""
    if FEWEST * start_s > PATIENCE * min_time:
        return 1
    return next((number for number in (MOST, USUAL) if number * start_s <= min_time), FEWEST)


def orders(models: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Every order of a few models, at random, before any comes again: who is started first may gain by it."""
    every = list(itertools.permutations(range(models)))
    while True:
        yield from (every[index] for index in rng.permutation(len(every)))


def _start(starters: Sequence[Starter], order: Sequence[int]) -> tuple[list[Started], float]:
    """What was started, in the order of the models, and the seconds that took."""
    begun = time.perf_counter()
    started: dict[int, Started] = {}
    with quiet():
        for which in order:
            started[which] = starters[which]()
    return [started[which] for which in range(len(starters))], time.perf_counter() - begun
