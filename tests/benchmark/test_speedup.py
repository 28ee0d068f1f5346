"""What may be said about a series of ratios: its interval, and the claim made of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.benchmark.speedup import claim, median_interval, noise, ratio_interval, session_interval, signed_rank_limit

RATIOS = st.floats(0.01, 100)
POWERS = st.integers(-4, 4).map(lambda power: 2.0**power)  # whose inverses are exact
INTERVALS = st.lists(RATIOS, min_size=2, max_size=2).map(sorted)


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


@given(st.lists(RATIOS, min_size=3, max_size=3).map(sorted), INTERVALS)
def test_what_is_claimed_lies_outside_1_and_the_control_and_nothing_else_is(
    found: list[float], control: list[float]
) -> None:
    """From the definition: the interval and the set {1} ∪ control have no number in common, and lie on one side."""
    low, speedup, high = found
    said = claim(speedup, low, high, *control)
    gain, loss = all(low > each for each in (1, control[1])), all(high < each for each in (1, control[0]))
    assert not (gain and loss)
    assert said.endswith("faster") is gain
    assert said.endswith("slower") is loss
    assert (said == "no difference beyond the noise") is not (gain or loss)


@given(st.lists(POWERS, min_size=3, max_size=3).map(sorted), st.lists(POWERS, min_size=2, max_size=2).map(sorted))
def test_the_other_way_round_the_opposite_is_claimed(found: list[float], control: list[float]) -> None:
    """Swapping the models turns every ratio over; the control stays a model against itself, seen from either copy."""
    said = claim(found[1], found[0], found[2], *control)
    low, speedup, high = (1 / each for each in reversed(found))
    swapped = claim(speedup, low, high, *(1 / each for each in reversed(control)))
    opposite = {"faster": "slower", "slower": "faster"}
    assert swapped.split()[-1] == opposite.get(said.split()[-1], "noise")


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.5, 2))
def test_an_interval_holds_its_median_and_scales_with_the_ratios(seed: int, rounds: int, factor: float) -> None:
    ratios = np.random.default_rng(seed).uniform(0.5, 2, rounds)
    middle, low, high = median_interval(ratios, seed)
    assert ratios.min() <= low <= high <= ratios.max()
    np.testing.assert_allclose(median_interval(factor * ratios, seed), factor * np.array([middle, low, high]))


def twins(*columns: list[float]) -> np.ndarray:
    return np.array(columns).T


def test_a_quiet_machine_has_no_noise() -> None:
    assert noise(twins([1.0] * 20, [1.01] * 20), 0.98, 1.02) == ()
    assert noise(twins([1.0] * 19 + [5.0], [1.0] * 20), 0.97, 1.03) == ()


@pytest.mark.parametrize("control", [(0.96, 1.0), (0.9, 1.1), (1.01, 1.04), (1.04, 1.05)])
def test_a_control_that_is_wide_or_off_is_noise(control: tuple[float, float]) -> None:
    low, high = control
    assert noise(twins([1.0], [1.0]), low, high) == (f"a model against itself: {low:.3f} to {high:.3f}",)


def test_long_tails_are_noise() -> None:
    slow = [1.0] * 15 + [2.0] * 5
    assert noise(twins(slow, slow), 1.0, 1.0) == ("one timing in ten takes 2.00 times the median or more",)


@pytest.mark.parametrize(
    ("n", "critical"),
    [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (11, 10), (12, 13), (15, 25), (20, 52)],
)
def test_the_limits_are_those_of_wilcoxons_table(n: int, critical: int) -> None:
    """The largest W that is significant at 5 %, two-sided; Wilcoxon 1945 and every table since."""
    assert signed_rank_limit(n) == critical


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_few_numbers_have_an_interval_of_all_there_is(n: int) -> None:
    values = np.arange(n, dtype=float)
    assert signed_rank_limit(n) == 0
    assert session_interval(values) == (pytest.approx(values.mean()), 0, n - 1)


def test_the_interval_of_all_signs_of_a_set_of_numbers_misses_0_as_often_as_it_says() -> None:
    """The definition: where every sign is as likely as its opposite, counted over all of them."""
    sizes = np.array([0.3, 1.0, 1.7, 2.9, 4.1, 8.5, 16.2, 100.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    intervals = [session_interval(row * sizes) for row in signs]
    missed = sum(low > 0 or high < 0 for _, low, high in intervals)
    assert missed == 2 * (1 + 1 + 1 + 2)  # subsets of the ranks with sum 0, 1, 2 and 3, on both sides
    assert all(low <= middle <= high for middle, low, high in intervals)


def test_one_session_that_was_disturbed_does_not_move_twelve() -> None:
    values = np.linspace(-0.01, 0.01, 12)
    disturbed = values.copy()
    disturbed[5] = 5.0
    _, low, high = session_interval(disturbed)
    assert -0.01 <= low <= 0 <= high <= 0.01


def test_luck_of_a_session_is_part_of_the_interval() -> None:
    """Sessions that differ by 2 %, each timed to a hair: pooled rounds would exclude 1 nearly always."""
    rng = np.random.default_rng(0)
    wrong = 0
    for seed in range(200):
        luck = 1 + 0.02 * rng.standard_normal((12, 2))
        runs = [np.full(40, a / b) * (1 + 1e-4 * rng.standard_normal(40)) for a, b in luck]
        _, low, high = ratio_interval(runs, seed)
        wrong += low > 1 or high < 1
    assert wrong <= 18  # 4.2 % expected: 8.4, and 18 is more than three standard deviations above


def test_swapping_the_models_turns_the_interval_over() -> None:
    rng = np.random.default_rng(0)
    runs = [rng.uniform(0.8, 1.3, 10) for _ in range(8)]
    middle, low, high = ratio_interval(runs, 0)
    assert ratio_interval([1 / each for each in runs], 0) == pytest.approx((1 / middle, 1 / high, 1 / low))


def test_started_once_the_rounds_are_all_there_is() -> None:
    ratios = np.random.default_rng(0).uniform(0.9, 1.1, 50)
    assert ratio_interval([ratios], 3) == median_interval(ratios, 3)
