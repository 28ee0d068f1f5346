"""What may be said about a series of ratios before / after: its median, how sure that is, and whether it is a gain.

The interval is a moving-block bootstrap of the rounds (Künsch, "The jackknife and the bootstrap for general stationary
observations", Annals of Statistics 17, 1989): neighbouring rounds are alike, so whole runs of them are drawn, of a
length that grows as the cube root of their number. A gain is claimed only where the interval excludes 1 *and* lies
outside that of the control, a model against itself, whose distance from 1 is what this machine makes of no change.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000

CONTROL_LIMIT = 0.03  # on a quiet machine, a model differs from its own copy by less
TAIL_LIMIT = 1.25


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
