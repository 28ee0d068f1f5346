"""Which taps an output position reads, against convolutions that tell: one output channel per tap, an image of ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bnfold.units.window import Mask, Window

MANY = 40  # sizes that stand for every size


def axis(
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    begin: int = 0,
    end: int = 0,
    size: int | None = None,
    transposed: bool = False,
    extra: int = 0,
) -> Window:
    return Window((kernel,), (stride,), (dilation,), (begin,), (end,), (size,), transposed, (extra,))


def live_taps(window: Window, size: int) -> Mask:
    """bool[positions, taps]: which taps of a convolution meet the image, as torch computes it."""
    [kernel], [stride], [dilation] = window.kernel, window.strides, window.dilations
    [begin], [end], extra = window.pads_begin, window.pads_end, sum(window.output_padding)
    image = torch.ones(1, 1, size, dtype=torch.float64)
    bank = torch.eye(kernel, dtype=torch.float64)
    if not window.transposed:
        padded = F.pad(image, (begin, end))
        if padded.shape[-1] < dilation * (kernel - 1) + 1:
            return np.zeros((0, kernel), dtype=np.bool_)
        result = F.conv1d(padded, bank[:, None], stride=stride, dilation=dilation)
    else:
        full = F.conv_transpose1d(image, bank[None], stride=stride, dilation=dilation)
        result = F.pad(full, (0, extra))[..., begin : max(full.shape[-1] + extra - end, begin)]
    return result[0].T.numpy() != 0


def rows(masks: Mask) -> set[tuple[bool, ...]]:
    return {tuple(bool(v) for v in row) for row in masks}


def occurring(window: Window) -> set[tuple[bool, ...]]:
    [size] = window.sizes
    sizes = range(1, MANY) if size is None else [size]
    return set().union(*(rows(live_taps(window, n)) for n in sizes))


def inner(window: Window) -> tuple[bool, ...]:
    """What the middle of a large image reads."""
    return tuple(bool(v) for v in live_taps(window, 4 * MANY)[len(live_taps(window, 4 * MANY)) // 2])


def test_without_padding_every_position_of_a_conv_reads_every_tap() -> None:
    """The case that must cost nothing: whatever the size, there is one set of taps."""
    [patterns] = axis(3, stride=2, dilation=2).patterns()
    np.testing.assert_array_equal(patterns, [[True, True, True]])


def test_padding_hides_taps_at_both_ends() -> None:
    """On one element both ends are hidden at once: both = left + right - full, so three sets say all there is."""
    [patterns] = axis(3, begin=1, end=1).patterns()
    assert rows(patterns) == {(True, True, True), (False, True, True), (True, True, False)}
    assert patterns[0].all()


def test_a_known_size_can_miss_the_padding_at_the_end() -> None:
    """Stride 2 on an even size: the last padded zero is never read."""
    [patterns] = axis(3, stride=2, begin=1, end=1, size=8).patterns()
    assert rows(patterns) == {(True, True, True), (False, True, True)}


def test_a_strided_conv_transpose_reads_another_tap_at_every_position() -> None:
    [patterns] = axis(2, stride=2, transposed=True).patterns()
    assert rows(patterns) == {(True, False), (False, True)}


def test_a_conv_transpose_with_gaps_has_positions_that_read_nothing() -> None:
    [patterns] = axis(1, stride=2, transposed=True, size=5).patterns()
    assert rows(patterns) == {(True,), (False,)}


def test_output_padding_adds_positions_that_read_nothing() -> None:
    window = axis(1, stride=2, transposed=True, size=3, extra=1)
    assert len(window._tap_rows(0, 3)) == 6
    assert not window._tap_rows(0, 3)[-1].any()


def test_cropping_a_conv_transpose_takes_its_border_away() -> None:
    """Kernel 3 cropped by 2 at each end is as uniform as a convolution without padding."""
    [patterns] = axis(3, begin=2, end=2, transposed=True, size=6).patterns()
    assert rows(patterns) == {(True, True, True)}


def test_axes_are_independent() -> None:
    window = Window((3, 2), (1, 1), (1, 1), (1, 0), (1, 0), (5, 5))
    first, second = window.patterns()
    assert rows(first) == rows(axis(3, begin=1, end=1, size=5).patterns()[0])
    assert rows(second) == {(True, True)}


def test_a_size_that_leaves_one_position_has_one_set_of_taps() -> None:
    """A 4-tap kernel with padding 1 on 2 elements: the full window of an inner position does not occur."""
    [patterns] = axis(4, begin=1, end=1, size=2).patterns()
    assert rows(patterns) == {(False, True, True, False)}


def test_a_size_of_one_reads_the_middle_of_a_same_padded_kernel() -> None:
    """Every 3-tap convolution on a 1-element feature (after a global pool) reads its middle tap only."""
    [patterns] = axis(3, begin=1, end=1, size=1).patterns()
    assert rows(patterns) == {(False, True, False)}


@st.composite
def windows(draw: st.DrawFn, transposed: bool) -> dict[str, Any]:
    stride = draw(st.integers(1, 4))
    return {
        "kernel": draw(st.integers(1, 4)),
        "stride": stride,
        "dilation": draw(st.integers(1, 3)),
        "begin": draw(st.integers(0, 3)),
        "end": draw(st.integers(0, 3)),
        "transposed": transposed,
        "extra": draw(st.integers(0, stride - 1)) if transposed else 0,
    }


@pytest.mark.parametrize("transposed", [False, True])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_tap_rows_are_what_torch_reads(transposed: bool, data: st.DataObject) -> None:
    window, size = axis(**data.draw(windows(transposed))), data.draw(st.integers(1, 9))
    np.testing.assert_array_equal(window._tap_rows(0, size), live_taps(window, size))


@pytest.mark.parametrize("transposed", [False, True])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_patterns_of_an_unknown_size_stand_for_those_of_all_sizes(transposed: bool, data: st.DataObject) -> None:
    """A weight answers all sets of taps alike exactly where it answers the listed ones alike: they span the others."""
    window = axis(**data.draw(windows(transposed)))
    [patterns] = window.patterns()
    assert len(rows(patterns)) == len(patterns), "a pattern is listed twice"
    assert tuple(patterns[0].tolist()) == inner(window)
    differences = (patterns[1:].astype(np.int64) - patterns[0]).reshape(-1, patterns.shape[1])
    others = np.array(sorted(occurring(window) | {inner(window)}), dtype=np.int64) - patterns[0]
    rank = np.linalg.matrix_rank
    if len(differences):
        assert rank(np.concatenate([differences, others])) == rank(differences)
    else:
        assert not others.any()


@given(windows(False), st.integers(9, 30))
@settings(max_examples=60, deadline=None)
@example({"kernel": 3, "stride": 3, "dilation": 1, "begin": 2, "end": 0}, 10)
def test_patterns_of_a_large_conv_are_those_that_occur(case: dict[str, Any], size: int) -> None:
    window = axis(**case, size=size)
    assume(live_taps(window, size).all(axis=1).any())
    [patterns] = window.patterns()
    assert rows(patterns) == occurring(window)


@given(windows(True), st.integers(8, 20))
@settings(max_examples=60, deadline=None)
def test_patterns_of_a_large_conv_transpose_are_those_that_occur(case: dict[str, Any], size: int) -> None:
    window = axis(**case, size=size)
    [patterns] = window.patterns()
    assert rows(patterns) == occurring(window)


@pytest.mark.parametrize("transposed", [False, True])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_patterns_of_a_small_size_are_those_that_occur(transposed: bool, data: st.DataObject) -> None:
    """Exactly them: one set too many makes a shift look as if it did not pass."""
    case, size = data.draw(windows(transposed)), data.draw(st.integers(1, 4))
    window = axis(**case, size=size)
    assume(len(live_taps(window, size)))
    [patterns] = window.patterns()
    assert rows(patterns) == occurring(window)
