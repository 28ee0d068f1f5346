"""What may be said about a series of ratios before / after: its middle, how sure that is, and whether it is a gain.

Where each model was started several times, every time gives one number, the median over its rounds of log(before /
after). Of two models that are the same these are symmetric about 0, as their sessions could be swapped, whatever else
their distribution is like. So the interval is that of Wilcoxon's signed-rank test, which is exact then: between order
statistics of the means of all pairs, whose median is the estimate (Hodges & Lehmann, "Estimates of location based on
rank tests", Annals of Mathematical Statistics 34, 1963). Where they were started once, it is a moving-block bootstrap
of the rounds (Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17,
1989): neighbouring rounds are alike, so whole runs of them are drawn, of a length that grows as the cube root of their
number. It does not know how much two sessions of one model differ.

A gain is claimed only where the interval excludes 1 *and* lies outside that of the control, a model against itself,
whose distance from 1 is what this machine makes of no change.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000

CONTROL_LIMIT = 0.03  # on a quiet machine, a model differs from its own copy by less
TAIL_LIMIT = 1.25


def ratio_interval(sessions: Sequence[NDArray[np.float64]], seed: int) -> tuple[float, float, float]:
    """The ratio of two models and its 95 % interval.

    Args:
        sessions: For each time they were started, the ratios of its rounds: float64[rounds].
        seed: Of the resampling where they were started once.

    Returns:
        Estimate, lower and upper end.
    """
    if len(sessions) == 1:
        return median_interval(sessions[0], seed)
    middle, low, high = session_interval(np.array([np.median(np.log(ratios)) for ratios in sessions]))
    return math.exp(middle), math.exp(low), math.exp(high)


def session_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The middle of a few independent numbers and its interval of at least 95 %, by signed ranks.

    Args:
        values: float64[n]; fewer than 6 have no such interval, and get that of all there is.

    Returns:
        Estimate, lower and upper end.
    """
    first, second = np.triu_indices(len(values))
    means = np.sort((values[first] + values[second]) / 2)
    outside = signed_rank_limit(len(values))
    return float(np.median(means)), float(means[outside]), float(means[-1 - outside])


@functools.cache
def signed_rank_limit(n: int) -> int:
    """How many of the sorted means of pairs lie outside a two-sided interval of at least 95 %, on each side.

    That is the largest w for which P(W ≤ w) ≤ 2.5 %, where W is the sum of a random subset of the ranks 1 … n; below 6
    there is none, and nothing lies outside.
    """
    ways = [1]  # ways[w]: subsets of the ranks so far with sum w
    for rank in range(1, n + 1):
        longer = ways + [0] * rank
        ways = [count + (ways[w - rank] if w >= rank else 0) for w, count in enumerate(longer)]
    inside = (w for w, count in enumerate(itertools.accumulate(ways)) if count * 40 > 2**n)
    return max(0, next(inside) - 1)


def median_interval(ratios: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """The median of a series and its 95 % interval, by the moving-block bootstrap.

    Args:
        ratios: float64[rounds], in the order they were measured.
        seed: Of the resampling.

    Returns:
        Median, lower and upper end.
    """
    length = max(1, round(len(ratios) ** (1 / 3)))
    count = math.ceil(len(ratios) / length)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(ratios) - length + 1, size=(RESAMPLES, count, 1))
    drawn = ratios[(starts + np.arange(length)).reshape(RESAMPLES, -1)[:, : len(ratios)]]
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def claim(speedup: float, low: float, high: float, control_low: float, control_high: float) -> str:
    """What may be said about a speed-up, given its interval and the control's."""
    if low > 1 and low > control_high:
        return f"{speedup:.2f}× faster"
    if high < 1 and high < control_low:
        return f"{1 / speedup:.2f}× slower"
    return "no difference beyond the noise"


def noise(twins: NDArray[np.float64], control_low: float, control_high: float) -> tuple[str, ...]:
    """What shows in the times of a model and of its own copy that the machine does something else meanwhile.

    Args:
        twins: float64[rounds, 2], seconds.
        control_low: Lower end of the control's interval.
        control_high: Upper end.

    Returns:
        In words; nothing on a quiet machine.
    """
    found = []
    if control_low < 1 - CONTROL_LIMIT or control_high > 1 + CONTROL_LIMIT:
        found.append(f"a model against itself: {control_low:.3f} to {control_high:.3f}")
    middle, slow = np.quantile(twins, [0.5, 0.9])
    if slow > TAIL_LIMIT * middle:
        found.append(f"one timing in ten takes {slow / middle:.2f} times the median or more")
    return tuple(found)
