"""The benchmark: a real difference is claimed, noise is not, and the conditions are said."""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper

from bnfold.bench import bench, claim, median_interval, time_rounds
from bnfold.errors import UnsupportedError, UsageError
from bnfold.subjects import OnnxSubject

bench_module = importlib.import_module("bnfold.bench")  # `bnfold.bench` itself is the function

QUICK = {"min_time": 0.05, "threads": 1}


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
        assert not gc.isenabled() or len(self._clock.order) < 9, "the garbage collector runs during a timing"
        self._clock.order.append(self.name)
        self._clock.now += self._seconds
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(bench_module, "time", made)
    return made


def rounds(runners: list[Sleeper], min_time: float) -> np.ndarray:
    calls = [lambda runner=runner: runner.run({}) for runner in runners]
    return time_rounds(calls, min_time=min_time, seed=0, progress=lambda done: None)


def work(repeats: int) -> onnx.ModelProto:
    """A model whose cost grows with `repeats`, and that onnxruntime cannot shorten."""
    names = ["x", *(f"v{index}" for index in range(repeats - 1)), "y"]
    nodes = [helper.make_node("Sin", [names[index]], [names[index + 1]]) for index in range(repeats)]
    return tiny.model(nodes, {}, shape=("N", 2000), out_shape=("N", 2000))


def test_a_faster_model_is_found_faster_and_a_slower_one_slower() -> None:
    for before, after, faster in ((40, 4, True), (4, 40, False)):
        (row,) = bench(work(before), work(after), runtimes=["ort"], min_time=0.2, threads=1).rows
        assert row.speedup is not None
        assert row.low is not None
        assert row.high is not None
        assert row.after_ms is not None
        assert row.low <= row.speedup <= row.high
        assert (row.low > 2) if faster else (row.high < 0.5)
        assert row.verdict.endswith("× faster" if faster else "× slower")
        assert (row.before_ms > row.after_ms) is faster


def test_a_model_against_itself_is_timed_as_its_own_control() -> None:
    (row,) = bench(work(10), work(10), runtimes=["ort-as-written"], min_time=0.3, threads=1).rows
    assert row.low <= row.speedup <= row.high
    assert row.control_low <= row.control_high


def test_the_control_is_the_model_against_its_own_second_session() -> None:
    """On a machine that favours the first session by a fifth, every interval says so."""
    times = np.tile([0.004, 0.005, 0.004], (20, 1)) * np.linspace(1, 2, 20)[:, None]
    row = bench_module._row("ort", 1, times, 0, "")
    assert (row.control_low, row.control_high) == pytest.approx((0.8, 0.8))
    assert (row.low, row.high) == pytest.approx((1, 1))


def test_a_single_model_is_timed_with_its_control() -> None:
    timing = bench(work(3), runtimes=["ort"], **QUICK)
    (row,) = timing.rows
    assert row.before_ms > 0
    assert (row.after_ms, row.speedup, row.low, row.high) == (None, None, None, None)
    assert row.verdict.startswith("a model against itself differs by ")


def test_the_runtimes_are_those_asked_for_in_that_order() -> None:
    assert [row.runtime for row in bench(work(2), work(2), **QUICK).rows] == ["ort", "ort-as-written"]
    doubled = bench(work(2), work(2), runtimes=["ort-as-written", "ort", "ort"], **QUICK)
    assert [row.runtime for row in doubled.rows] == ["ort-as-written", "ort"]


def test_where_the_runtime_folds_by_itself_no_gain_is_expected() -> None:
    rows = {row.runtime: row.verdict for row in bench(tiny.conv_bn(), tiny.folded(), **QUICK).rows}
    said = " (no gain is expected: onnxruntime folds the one BatchNorm itself)"
    assert rows["ort"].endswith(said)
    assert "expected" not in rows["ort-as-written"]


def test_where_the_runtime_folds_nothing_nothing_is_said() -> None:
    (row,) = bench(tiny.bn_relu(), tiny.bn_relu(), runtimes=["ort"], **QUICK).rows
    assert "onnxruntime" not in row.verdict


@pytest.mark.parametrize(
    ("found", "left", "said"),
    [
        (17, 0, " (no gain is expected: onnxruntime folds all 17 BatchNorms itself)"),
        (17, 5, " (onnxruntime folds 12 of the 17 BatchNorms itself)"),
        (17, 17, ""),
        (0, 0, ""),
        (17, None, ""),
    ],
)
def test_what_the_runtime_folds_is_said(
    monkeypatch: pytest.MonkeyPatch, found: int, left: int | None, said: str
) -> None:
    monkeypatch.setattr(bench_module, "count_operators", lambda model: {"BatchNormalization": found})
    monkeypatch.setattr(bench_module, "batch_norms_after_load", lambda model: left)
    assert bench_module._runtime_folds(OnnxSubject(b"", None, "the model before")) == said


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1.5, 1.4, 1.6, 0.98, 1.02), "1.50× faster"),
        ((0.5, 0.4, 0.6, 0.98, 1.02), "2.00× slower"),
        ((1.5, 0.9, 1.6, 0.98, 1.02), "no difference beyond the noise"),
        ((1.05, 1.01, 1.1, 0.97, 1.02), "no difference beyond the noise"),
        ((0.97, 0.96, 0.99, 0.98, 1.02), "no difference beyond the noise"),
        ((1.0, 1.0, 1.0, 1.0, 1.0), "no difference beyond the noise"),
        ((1.05, 1.04, 1.06, 0.8, 0.9), "1.05× faster"),
        ((0.95, 0.94, 0.96, 0.8, 0.9), "no difference beyond the noise"),
    ],
)
def test_a_difference_is_claimed_only_outside_1_and_the_control(numbers: tuple[float, ...], expected: str) -> None:
    assert claim(*numbers) == expected


def test_sessions_take_turns_in_random_order(clock: Clock) -> None:
    times = rounds([Sleeper(clock, 0.0011, name) for name in "abc"], 0.1)
    turns = ["".join(clock.order[start : start + 3]) for start in range(9, len(clock.order), 3)]
    assert len(turns) == len(times) > bench_module.MIN_ROUNDS
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
    assert len(rounds([Sleeper(clock, 5.0), Sleeper(clock, 5.0)], 1.0)) == bench_module.MIN_ROUNDS


def test_a_fast_model_is_repeated_within_a_timing(clock: Clock) -> None:
    times = rounds([Sleeper(clock, 1e-5), Sleeper(clock, 2e-5)], 0.05)
    np.testing.assert_allclose(times, np.broadcast_to([1e-5, 2e-5], times.shape))
    assert len(clock.order) == 6 + len(times) * 2 * 100


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        _, low, high = median_interval(1 + 0.1 * rng.standard_normal(60), seed)
        hits += low <= 1 <= high
    assert 85 <= hits <= 100


def test_the_interval_of_a_drifting_machine_is_wider_than_of_a_steady_one() -> None:
    noise = np.random.default_rng(0).standard_normal(200)
    drifting = 1 + 0.05 * np.convolve(noise, np.ones(20) / np.sqrt(20), mode="same")
    shuffled = np.random.default_rng(1).permutation(drifting)
    _, low, high = median_interval(drifting, 0)
    _, steady_low, steady_high = median_interval(shuffled, 0)
    assert high - low > 1.3 * (steady_high - steady_low)


def test_the_interval_does_not_depend_on_luck() -> None:
    ratios = np.random.default_rng(0).uniform(0.9, 1.1, 50)
    assert median_interval(ratios, 3) == median_interval(ratios, 3)
    assert median_interval(np.array([1.25]), 0) == (1.25, 1.25, 1.25)


@pytest.mark.parametrize("min_time", [0, -1, float("nan"), float("inf")])
def test_a_time_that_is_no_time_is_a_usage_error(min_time: float) -> None:
    with pytest.raises(UsageError, match="the time to measure must be positive"):
        bench(work(2), min_time=min_time)


def test_other_mistakes_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
        bench(work(2), threads=0)
    with pytest.raises(UsageError, match="no runtime is called 'tensorrt'"):
        bench(work(2), runtimes=["tensorrt"])
    with pytest.raises(UnsupportedError, match="cannot be run directly"):
        bench(3)


def test_inputs_and_threads_are_the_callers() -> None:
    x = np.zeros((5, 2000), np.float32)
    timing = bench(work(2), inputs=x, runtimes=["ort"], min_time=0.05, threads=2)
    assert timing.batch == 5
    assert timing.rows[0].threads == 2
    assert bench(work(2), runtimes=["ort"], min_time=0.05).batch == 1


def test_progress_goes_to_1_over_all_runtimes() -> None:
    seen: list[float] = []
    bench(work(2), progress=seen.append, **QUICK)
    assert seen == sorted(seen)
    assert seen[0] < 0.5
    assert seen[-1] == 1


def test_to_dict_is_the_contract() -> None:
    made = bench(work(2), work(2), runtimes=["ort"], **QUICK).to_dict()
    assert set(made["rows"][0]) >= {
        *("runtime", "threads", "before_ms", "after_ms", "speedup", "low", "high", "control_low", "control_high"),
    }
    json.dumps(made, allow_nan=False)
