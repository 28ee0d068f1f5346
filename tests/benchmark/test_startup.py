"""What a model costs before it answers: each part of it is measured alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny

from bnfold.benchmark import startup
from bnfold.benchmark.startup import Startup, start_network, start_session, typical
from bnfold.running.runners import make_runner

FEEDS = {"x": np.zeros((1, 3, 6, 6), np.float32)}


class Clock:
    """A clock that only the models move."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(startup, "time", made)
    return made


def test_loading_and_the_first_run_are_told_apart(clock: Clock) -> None:
    class Loaded:
        def __init__(self) -> None:
            clock.now += 0.25

        def run(self, feeds: Any) -> None:
            assert feeds is FEEDS
            clock.now += 0.5

        def prepared(self, feeds: Any) -> Any:
            return lambda: "ready"

    call, found = start_session(Loaded, FEEDS)  # type: ignore[arg-type]
    assert (found.load_ms, found.first_ms) == (pytest.approx(250), pytest.approx(500))
    assert call() == "ready"


def test_a_network_has_nothing_to_load_and_holds_its_weights() -> None:
    calls: list[str] = []

    class Runner:
        def prepared(self, feeds: Any) -> Any:
            assert feeds is FEEDS
            return lambda: calls.append("call")

    def stopwatch(call: Any, repeats: int) -> float:
        call()
        return 0.125 * repeats

    _, found = start_network(Runner, FEEDS, stopwatch, 1000, lambda call: 234)  # type: ignore[arg-type]
    assert found == Startup(None, 125, 1234)
    _, found = start_network(Runner, FEEDS, stopwatch, 1000, lambda call: None)  # type: ignore[arg-type]
    assert found.peak_bytes is None


def test_the_middle_times_count_and_the_largest_peak() -> None:
    assert typical([Startup(1, 1, 5), Startup(30, 2, 9), Startup(2, 3, None)]) == Startup(2, 2, 9)
    assert typical([Startup(None, 4, None)]) == Startup(None, 4, None)


def test_a_session_is_loaded_and_run() -> None:
    call, found = start_session(lambda: make_runner("ort", tiny.conv_bn().SerializeToString(), threads=1), FEEDS)
    assert list(call()) == ["y"]
    assert found.load_ms is not None
    assert found.load_ms > 0
    assert found.first_ms > 0
