"""Rounds: in random order, each time with its session, as long and as often as asked for."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bnfold.running import timing
from bnfold.running.timing import time_rounds


class Clock:
    """A clock that only the runners move, so that the machine's own noise is not in the tests."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def perf_counter(self) -> float:
        return self.now


class Sleeper:
    """A runner that takes exactly as long as it is told."""

    def __init__(self, clock: Clock, seconds: float, name: str = "") -> None:
        self.name = name
        self.input_names = ("x",)
        self._clock = clock
        self._seconds = seconds

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        assert not gc.isenabled() or len(self._clock.order) < 3 * timing.FIRST_CALLS, (
            "the garbage collector runs during a timing"
        )
        self._clock.order.append(self.name)
        self._clock.now += self._seconds
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def rounds(runners: list[Sleeper], min_time: float) -> np.ndarray:
    calls = [lambda runner=runner: runner.run({}) for runner in runners]
    return time_rounds(calls, min_time=min_time, seed=0)


def test_sessions_take_turns_in_random_order(clock: Clock) -> None:
    times = rounds([Sleeper(clock, 0.0011, name) for name in "abc"], 0.1)
    turns = ["".join(clock.order[start : start + 3]) for start in range(3 * timing.FIRST_CALLS, len(clock.order), 3)]
    assert len(turns) == len(times) > timing.MIN_ROUNDS
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) == 6
    assert gc.isenabled()


def test_each_time_stays_with_its_session(clock: Clock) -> None:
    times = rounds([Sleeper(clock, seconds) for seconds in (0.002, 0.003, 0.004)], 0.1)
    np.testing.assert_allclose(times, np.broadcast_to([0.002, 0.003, 0.004], times.shape))


def test_it_measures_for_the_time_asked_for(clock: Clock) -> None:
    runners = [Sleeper(clock, 0.0012), Sleeper(clock, 0.0013)]
    times = rounds(runners, 0.25)
    assert 0.25 <= times.sum() < 0.2526


def test_a_slow_model_is_timed_a_few_times_whatever_it_takes(clock: Clock) -> None:
    assert len(rounds([Sleeper(clock, 5.0), Sleeper(clock, 5.0)], 1.0)) == timing.MIN_ROUNDS


def test_a_fast_model_is_repeated_within_a_timing(clock: Clock) -> None:
    times = rounds([Sleeper(clock, 1e-5), Sleeper(clock, 2e-5)], 0.05)
    np.testing.assert_allclose(times, np.broadcast_to([1e-5, 2e-5], times.shape))
    assert len(clock.order) == 2 * timing.FIRST_CALLS + len(times) * 2 * 100


def test_a_stopwatch_of_another_kind_is_what_counts(clock: Clock) -> None:
    """As on a device whose calls return before their work is done."""
    sleepers = [Sleeper(clock, 0.002), Sleeper(clock, 0.003)]

    def half(call: timing.Call, repeats: int) -> float:
        return timing.wall_seconds(call, repeats) / 2

    times = time_rounds([lambda each=each: each.run({}) for each in sleepers], min_time=0.1, seed=0, stopwatch=half)
    np.testing.assert_allclose(times, np.broadcast_to([0.001, 0.0015], times.shape))


def test_a_device_is_spun_up_before_the_first_round(clock: Clock) -> None:
    at: list[float] = []

    def noted(call: timing.Call, repeats: int) -> float:
        at.append(clock.now)
        return timing.wall_seconds(call, repeats)

    sleeper = Sleeper(clock, 0.01)
    times = time_rounds([lambda: sleeper.run({})], min_time=0.1, seed=0, stopwatch=noted, spin_up=0.5)
    assert len(times) == 10
    assert len(at) == timing.FIRST_CALLS + 50 + len(times)
