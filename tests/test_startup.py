"""What a model costs before it answers: each is started alone, and in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny

from bnfold import startup
from bnfold.runners import make_runner
from bnfold.startup import Startup, started

FEEDS = {"x": np.zeros((1, 3, 6, 6), np.float32)}


class Clock:
    """A clock that only the models move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(startup, "time", made)
    return made


def model(clock: Clock, name: str, load: list[float], first: float) -> Any:
    """A model that takes this long to load, each time something else, and this long to run."""
    times = iter(load)

    class Loaded:
        def __init__(self) -> None:
            clock.now += next(times)
            clock.log.append(name)

        def run(self, feeds: Any) -> None:
            assert feeds is FEEDS
            clock.now += first

    return Loaded


def test_each_is_started_in_turn_and_the_middle_one_counts(clock: Clock) -> None:
    found = started([model(clock, "a", [0.1, 0.9, 0.2], 0.01), model(clock, "b", [0.05, 0.04, 0.06], 0.02)], FEEDS)
    assert clock.log == ["a", "b"] * 3
    assert [(each.load_ms, each.first_ms) for each in found] == [
        (pytest.approx(200), pytest.approx(10)),
        (pytest.approx(50), pytest.approx(20)),
    ]


def test_what_takes_long_is_started_once(clock: Clock) -> None:
    assert started([model(clock, "a", [5.0], 1.0)], FEEDS)[0].load_ms == pytest.approx(5000)
    assert clock.log == ["a"]


def test_the_largest_peak_counts_and_an_unknown_one_is_none() -> None:
    assert startup._typical([Startup(1, 1, 5), Startup(3, 2, 9), Startup(2, 3, None)]) == Startup(2, 2, 9)
    assert startup._typical([Startup(1, 1, None)]).peak_bytes is None


def test_a_session_is_loaded_and_run() -> None:
    [found] = started([lambda: make_runner("ort", tiny.conv_bn().SerializeToString(), threads=1)], FEEDS)
    assert found.load_ms is not None
    assert found.load_ms > 0
    assert found.first_ms > 0
