"""The benchmark: a real difference is claimed, noise is not, and the conditions are said."""

from __future__ import annotations

import importlib
import json

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper

from bnfold.benchmark.bench import bench
from bnfold.benchmark.latency import row_of
from bnfold.benchmark.speedup import claim
from bnfold.benchmark.startup import Startup
from bnfold.errors import UnsupportedError, UsageError
from bnfold.running.subjects import OnnxSubject

bench_module = importlib.import_module("bnfold.benchmark.bench")  # `bnfold.bench` itself is the function

QUICK = {"min_time": 0.05, "threads": 1}


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
        assert (row.speedup > 2) if faster else (row.speedup < 0.5)
        assert row.verdict == claim(row.speedup, row.low, row.high, row.control_low, row.control_high)
        assert (row.before_ms > row.after_ms) is faster


def test_a_model_against_itself_is_timed_as_its_own_control() -> None:
    (row,) = bench(work(10), work(10), runtimes=["ort-as-written"], min_time=0.3, threads=1).rows
    assert row.low <= row.speedup <= row.high
    assert row.control_low <= row.control_high


def test_the_control_is_the_model_against_its_own_second_session() -> None:
    """On a machine that favours the first session by a fifth, every interval says so."""
    times = np.tile([0.004, 0.005, 0.004], (20, 1)) * np.linspace(1, 2, 20)[:, None]
    row = row_of("ort", 1, "cpu", [times], [[Startup(1.0, 2.0, 3)]] * 3, 0)
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
