"""What may be said about a series of ratios: its interval, and the claim made of it."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.speedup import claim, median_interval


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
