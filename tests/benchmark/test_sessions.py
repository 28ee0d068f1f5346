"""Models are started several times in random order, as often as their start allows, and timed each time."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnfold.benchmark import sessions
from bnfold.benchmark.latency import row_of
from bnfold.benchmark.sessions import how_many, orders, time_sessions
from bnfold.benchmark.startup import Startup
from bnfold.running import timing


class Machine:
    """A clock that only models move, and the models: each session of one is faster or slower by luck."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def starter(self, name: str, seconds: list[float], start: float = 0.001) -> Any:
        luck = iter(seconds)

        def begin() -> Any:
            self.started.append(name)
            self.now += start
            taken = next(luck)

            def call() -> None:
                self.now += taken

            return call, Startup(None, len(self.started), None)

        return begin


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(sessions, "time", made)
    monkeypatch.setattr(timing, "time", made)
    monkeypatch.setattr(timing, "gc", SimpleNamespace(isenabled=lambda: False, collect=int, disable=int, enable=int))
    return made


@pytest.mark.parametrize(
    ("start_s", "min_time", "expected"),
    [
        (0.0, 1.0, 12),
        (1 / 12, 1.0, 12),
        (0.1, 1.0, 8),
        (1 / 8, 1.0, 8),
        (0.13, 1.0, 6),
        (10 / 6, 1.0, 6),
        (1.7, 1.0, 1),
        (1.7, 2.0, 6),
    ],
)
def test_models_are_started_as_often_as_that_allows(start_s: float, min_time: float, expected: int) -> None:
    assert how_many(start_s, min_time) == expected


def test_every_start_has_its_rounds_and_its_luck(machine: Machine) -> None:
    luck = {name: [factor * (1 + 0.01 * k) for k in range(12)] for name, factor in (("a", 0.002), ("b", 0.003))}
    times, startups = time_sessions([machine.starter(*each) for each in luck.items()], min_time=1.2, seed=0)
    assert len(times) == 12
    for k, each in enumerate(times):
        np.testing.assert_allclose(each, np.broadcast_to([luck["a"][k], luck["b"][k]], each.shape), rtol=1e-6)
    assert [len(made) for made in startups] == [12, 12]
    assert sum(float(each.sum()) for each in times) == pytest.approx(1.2, rel=0.1)


def test_what_starting_cost_stays_with_its_model(machine: Machine) -> None:
    _, startups = time_sessions([machine.starter(name, [0.002] * 12) for name in "ab"], min_time=0.1, seed=0)
    for name, made in zip("ab", startups, strict=True):
        assert [machine.started[int(startup.first_ms) - 1] for startup in made] == [name] * len(made)


def test_they_are_started_in_random_order(machine: Machine) -> None:
    time_sessions([machine.starter(name, [0.002] * 12) for name in "abc"], min_time=1.0, seed=0)
    turns = {"".join(machine.started[start : start + 3]) for start in range(0, 36, 3)}
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(turns) == 6


def test_each_order_comes_as_often_as_any_other(machine: Machine) -> None:
    """Whatever being started first or last does to a session, it does to all models alike."""
    for models, each in ((2, 6), (3, 2)):
        turns = orders(models, np.random.default_rng(0))
        counts = Counter(next(turns) for _ in range(12))
        assert set(counts.values()) == {each}
    first, second = ([next(orders(3, np.random.default_rng(seed))) for _ in range(1)] for seed in (0, 3))
    assert first != second


def test_what_starts_slowly_is_started_once_and_timed_as_often(machine: Machine) -> None:
    times, _ = time_sessions([machine.starter(name, [2.0], start=60.0) for name in "ab"], min_time=1.0, seed=0)
    assert [len(each) for each in times] == [timing.MIN_ROUNDS]
    times, _ = time_sessions([machine.starter(name, [2e-3]) for name in "ab"], min_time=1.0, seed=0, once=True)
    assert len(times) == 1


def test_there_are_no_fewer_rounds_in_all_for_a_slow_model(machine: Machine) -> None:
    times, _ = time_sessions([machine.starter(name, [1.0] * 12) for name in "ab"], min_time=1.0, seed=0)
    assert sum(map(len, times)) >= timing.MIN_ROUNDS
    assert len(times) == 12


def test_a_device_is_spun_up_once_and_kept_warm(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    plain = timing.time_rounds

    def noted(*arguments: Any, spin_up: float, **more: Any) -> Any:
        asked.append(spin_up)
        return plain(*arguments, spin_up=spin_up, **more)

    monkeypatch.setattr(sessions, "time_rounds", noted)
    time_sessions([machine.starter("a", [0.01] * 12)], min_time=1.0, seed=0, spin_up=1.0)
    assert asked == [1.0] + [sessions.WARM_S] * 11


def test_what_was_started_is_let_go_before_the_next_start(machine: Machine) -> None:
    class Session:
        alive = 0

        def __init__(self) -> None:
            Session.alive += 1
            assert Session.alive <= 2

        def __call__(self) -> None:
            machine.now += 0.01

        def __del__(self) -> None:
            Session.alive -= 1

    starters = [lambda: (Session(), Startup(None, 1.0, None))] * 2
    assert len(time_sessions(starters, min_time=1.0, seed=0)[0]) == 12


def test_progress_goes_up_to_1(machine: Machine) -> None:
    seen: list[float] = []
    time_sessions([machine.starter("a", [0.01] * 12)], min_time=1.0, seed=0, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert seen[0] < 0.1


def runs_against_itself(machine: Machine, runs: int, once: bool) -> tuple[int, int]:
    """How often an interval excludes 1 and a difference is claimed, where sessions have luck and others interrupt."""
    rng = np.random.default_rng(0)
    wrong = claimed = 0

    def starter() -> Any:
        luck = 0.01 * (1 + 0.01 * rng.standard_normal())

        def call() -> None:
            interrupted = 0.05 if rng.random() < 0.02 else 0.0
            machine.now += luck * (1 + 0.05 * math.sin(machine.now)) * (1 + 0.02 * rng.exponential()) + interrupted

        return call, Startup(None, 1.0, None)

    for run in range(runs):
        times, startups = time_sessions([starter] * 3, min_time=1.0, seed=run, once=once)
        row = row_of("ort", 1, "cpu", times, startups, run)
        assert row.low is not None
        assert row.high is not None
        wrong += row.low > 1 or row.high < 1
        claimed += "×" in row.verdict
    return wrong, claimed


def test_a_model_is_rarely_different_from_itself(machine: Machine) -> None:
    wrong, claimed = runs_against_itself(machine, 100, once=False)
    assert wrong <= 10  # 4.2 expected; more than 10 has a chance of 0.3 %
    assert claimed <= 2


def test_one_start_each_would_see_the_luck_of_a_session(machine: Machine) -> None:
    wrong, _ = runs_against_itself(machine, 20, once=True)
    assert wrong >= 6
