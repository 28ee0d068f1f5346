"""A row from the seconds of its rounds, and what is said of a machine that does something else meanwhile."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from bnfold.benchmark.latency import Row, Timing, row_of
from bnfold.benchmark.startup import Startup

BEFORE, AFTER = Startup(10.0, 20.0, 1000), Startup(None, 5.0, None)
SECONDS = np.linspace(1, 2, 101)


def test_each_side_has_its_own_median_and_tails() -> None:
    times = np.stack([0.001 * SECONDS, 0.001 * SECONDS, 0.0005 * SECONDS], axis=1)
    row = row_of("ort", 2, "cpu", [times], ([BEFORE], [BEFORE], [AFTER]), 0, " (and more)")
    assert (row.before_ms, row.after_ms, row.speedup) == (pytest.approx(1.5), pytest.approx(0.75), pytest.approx(2))
    assert row.before is not None
    assert row.after is not None
    assert (row.before.p90_ms, row.before.p99_ms) == (pytest.approx(1.9), pytest.approx(1.99))
    assert (row.after.p90_ms, row.after.p99_ms) == (pytest.approx(0.95), pytest.approx(0.995))
    assert (row.before.load_ms, row.before.first_ms, row.before.peak_bytes) == (10, 20, 1000)
    assert (row.after.load_ms, row.after.first_ms, row.after.peak_bytes) == (None, 5, None)
    assert (row.runtime, row.threads, row.device, row.verdict) == ("ort", 2, "cpu", "2.00× faster (and more)")


def test_a_model_alone_has_one_side() -> None:
    row = row_of("torch", 1, "cuda", [np.stack([SECONDS, SECONDS], axis=1)], ([BEFORE], [BEFORE]), 0)
    assert (row.after_ms, row.speedup, row.low, row.high, row.after) == (None, None, None, None, None)
    assert row.to_dict()["after"] is None
    assert row.device == "cuda"


def test_the_json_holds_the_contract_and_more() -> None:
    times = np.stack([SECONDS, SECONDS, SECONDS], axis=1)
    row = row_of("ort", 1, "cpu", [times, times], ([BEFORE] * 2, [BEFORE] * 2, [AFTER] * 2), 0)
    made = Timing((row,), 8, None, 100, 90, 0.5).to_dict()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert set(made) == {"rows", "batch", "gpu", "bytes_before", "bytes_after", "load_average", "warnings"}
    assert set(made["rows"][0]) == {
        *("runtime", "threads", "before_ms", "after_ms", "speedup", "low", "high", "control_low", "control_high"),
        *("verdict", "device", "before", "after", "sessions", "noise"),
    }
    assert set(made["rows"][0]["before"]) == {"p90_ms", "p99_ms", "load_ms", "first_ms", "peak_bytes"}


def quiet_row(**changes: object) -> Row:
    numbers = {"before_ms": 1.0, "after_ms": 1.0, "speedup": 1.0, "low": 0.99, "high": 1.01}
    control = {"control_low": 0.99, "control_high": 1.01, "verdict": ""}
    return Row(**({"runtime": "ort", "threads": 1} | numbers | control | changes))  # type: ignore[arg-type]


def test_a_quiet_machine_is_not_warned_of() -> None:
    assert Timing((quiet_row(),), 1, load_average=float(os.cpu_count() or 1)).warnings == ()
    assert Timing((quiet_row(),), 1, load_average=None).warnings == ()


def test_a_noisy_machine_is_warned_of_in_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    noisy = quiet_row(noise=("a model against itself: 0.900 to 1.000", "one timing in ten is slow"))
    assert Timing((quiet_row(), noisy), 1, load_average=3.14).warnings == (
        "ort: the machine is noisy (a model against itself: 0.900 to 1.000; one timing in ten is slow)",
        "the machine was busy before: a load average of 3.1 on 2 cores",
    )


def test_a_noisy_machine_is_warned_of_once_however_many_runtimes_saw_it() -> None:
    rows = (quiet_row(noise=("this", "that")), quiet_row(), quiet_row(runtime="torch", noise=("that",)))
    assert Timing(rows, 1).warnings == ("the machine is noisy (ort: this; that; torch: that)",)


def test_sessions_are_what_the_interval_is_made_of() -> None:
    """Eight sessions whose luck differs: the interval spans their middles, however many rounds each has."""
    luck = np.array([0.9, 0.92, 0.97, 0.99, 1.01, 1.03, 1.08, 1.1])
    times = [np.stack([np.full(100, 0.001 * x), np.full(100, 0.001), np.full(100, 0.001)], axis=1) for x in luck]
    row = row_of("ort", 1, "cpu", times, [[BEFORE] * 8, [BEFORE] * 8, [AFTER] * 8], 0)
    assert row.sessions == 8
    assert row.low is not None
    assert row.high is not None
    assert (row.low, row.high) == (row.control_low, row.control_high)
    assert row.low < 0.95
    assert row.high > 1.05
