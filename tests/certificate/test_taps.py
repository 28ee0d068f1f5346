"""Kernels by what they read, against PyTorch's convolutions in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from bnfold.certificate.bounds import Bound
from bnfold.certificate.taps import Slide, Taps, align, sum_of

Draw = st.DrawFn


@st.composite
def kernels(draw: Draw, channels: int = 4, stride: int | None = None) -> Taps:
    """A convolution of one axis of space, `channels` in and out."""
    groups = draw(st.sampled_from([1, 2, channels]))
    taps, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    begin, end = (draw(st.integers(0, 2)) for _ in range(2))
    step = draw(st.integers(1, 2)) if stride is None else stride
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    mid = rng.normal(size=(groups, channels // groups, channels // groups, taps))
    return Taps(mid, np.zeros((1,) * 4), Slide((step,), (dilation,), (begin,), (end,), (None,)), 1, 3)


def convolved(taps: Taps, x: torch.Tensor) -> torch.Tensor:
    """The definition."""
    weight = torch.from_numpy(taps.mid.reshape(taps.outs, -1, *taps.window).copy())
    padded = F.pad(x, (taps.slide.begin[0], taps.slide.end[0]))
    return F.conv1d(padded, weight, stride=taps.slide.strides, dilation=taps.slide.dilations, groups=taps.groups)


@seed(0)
@settings(max_examples=150, deadline=None, database=None)
@given(kernels(), st.integers(0, 99))
def test_response_is_that_of_a_constant_image(taps: Taps, number: int) -> None:
    image = np.random.default_rng(number).normal(size=taps.ins)
    response, even = taps.response(Bound.exact(image))
    seen = []
    for size in range(1, 14):
        reach = taps.slide.dilations[0] * (taps.window[0] - 1) + 1
        if size + taps.slide.begin[0] + taps.slide.end[0] < reach:
            continue
        seen.append(convolved(taps, torch.from_numpy(image).reshape(1, -1, 1).expand(1, taps.ins, size)))
    everywhere = torch.cat(seen, dim=2)[0].numpy()
    for channel in range(taps.outs):
        alike = np.ptp(everywhere[channel]) <= 1e-12
        assert bool(even[channel]) == alike
        if alike:
            assert abs(response.mid[channel] - everywhere[channel, 0]) <= 1e-12


@seed(0)
@settings(max_examples=150, deadline=None, database=None)
@given(kernels(stride=1), kernels(stride=1), st.integers(0, 99))
def test_a_sum_is_the_sum(one: Taps, two: Taps, number: int) -> None:
    total = sum_of(one, two)
    if one.positions() != two.positions():
        assert total is None
        return
    assert total is not None
    x = torch.from_numpy(np.random.default_rng(number).normal(size=(2, one.ins, 9)))
    assert (convolved(total, x) - convolved(one, x) - convolved(two, x)).abs().max() <= 1e-12


def test_an_exact_kernel_aligned_with_itself_is_itself() -> None:
    taps = Taps(np.ones((1, 2, 2, 3)), np.zeros((1,) * 4), Slide((1,), (1,), (1,), (1,), (None,)), 1, 3)
    assert align(taps, taps) == (taps, taps)


def test_strides_that_differ_are_no_sum() -> None:
    taps = Taps(np.ones((1, 2, 2, 1)), np.zeros((1,) * 4), Slide((1,), (1,), (0,), (0,), (None,)), 1, 3)
    assert sum_of(taps, replace(taps, slide=replace(taps.slide, strides=(2,)))) is None


@pytest.mark.parametrize(("kernel", "stride", "even"), [(2, 2, True), (3, 2, False), (3, 1, False), (1, 1, True)])
def test_a_transposed_kernel_passes_a_shift_if_every_place_gets_the_same(kernel: int, stride: int, even: bool) -> None:
    mid = np.ones((1, 1, 1, kernel))
    taps = Taps(mid, np.zeros((1,) * 4), Slide((stride,), (1,), (0,), (0,), (None,), True, (0,)), 1, 3)
    response, alike = taps.response(Bound.exact(np.array([2.0])))
    assert alike.tolist() == [even]
    if even:
        assert response.mid.tolist() == [2.0]
