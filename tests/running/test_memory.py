"""Peak memory: what a piece of work takes beyond what is there, whatever was there before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnfold.running import memory

MEGABYTE = 1_000_000

linux = pytest.mark.skipif(memory.resident("VmHWM") is None, reason="this system does not tell")


@linux
def test_what_is_taken_and_given_back_is_counted() -> None:
    before = memory.peak_bytes(lambda: np.ones(100 * MEGABYTE, np.uint8).sum())
    assert before == pytest.approx(100 * MEGABYTE, rel=0.05)
    assert memory.peak_bytes(lambda: None) < 5 * MEGABYTE


@linux
def test_what_earlier_work_left_behind_hides_nothing() -> None:
    blocks = [bytearray(b"x" * 50_000) for _ in range(1000)]  # small enough that the allocator keeps them
    kept = blocks[::100]  # so that the heap cannot simply become shorter
    blocks.clear()
    taken = memory.peak_bytes(lambda: [bytearray(b"x" * 50_000) for _ in range(1000)])
    assert taken == pytest.approx(50 * MEGABYTE, rel=0.1)
    assert len(kept) == 10


@linux
def test_it_can_be_measured_once_more() -> None:
    peak = memory.PeakMemory()
    for size in (80, 20):
        with peak:
            np.ones(size * MEGABYTE, np.uint8)
        assert peak.bytes == pytest.approx(size * MEGABYTE, rel=0.1)


def test_where_the_system_does_not_tell_it_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "absent")
    assert memory.resident("VmRSS") is None
    assert memory.peak_bytes(lambda: None) is None
    monkeypatch.undo()
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "absent" / "too")
    assert memory.peak_bytes(lambda: None) is None
