"""Streamed moments against their definition, however the stream is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.statistics.moments import Moments


def values(seed: int, rows: int, offset: float = 0.0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((rows, 3, 2, 2)) + offset
    x.setflags(write=False)
    return x


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_parts_merge_to_the_whole(seed: int, sizes: list[int]) -> None:
    x = values(seed, sum(sizes), offset=1e4)
    parts = np.split(x, np.cumsum(sizes)[:-1])
    merged = Moments.of(parts[0])
    for part in parts[1:]:
        merged = merged.merge(Moments.of(part))
    flat = np.moveaxis(x, 1, 0).reshape(3, -1)
    assert merged.count == flat.shape[1]
    if merged.count:
        assert merged.mean == pytest.approx(flat.mean(axis=1), rel=1e-13)
        assert merged.variance == pytest.approx(flat.var(axis=1), rel=1e-9, abs=1e-12)


def test_it_does_not_cancel_where_the_naive_sum_of_squares_does() -> None:
    x = values(0, 64, offset=1e8)
    merged = Moments.of(x[:32]).merge(Moments.of(x[32:]))
    flat = np.moveaxis(x, 1, 0).reshape(3, -1)
    naive = np.square(flat).mean(axis=1) - np.square(flat.mean(axis=1))
    assert merged.variance == pytest.approx(flat.var(axis=1), rel=1e-7)
    assert naive != pytest.approx(flat.var(axis=1), rel=1e-2)


def test_float16_is_summed_in_float64() -> None:
    x = np.full((5000, 1), 3.0, np.float16)
    assert Moments.of(x).mean == pytest.approx([3.0], abs=0)
