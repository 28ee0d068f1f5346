"""Two classifiers on the same rows: is their difference more than chance?

Only the rows where one is right and the other is wrong say anything about which is better. If neither is, each such row
is a coin toss: McNemar's test (1947), here exact, from the binomial distribution and not its normal approximation.
"""

from __future__ import annotations

import math

Z_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def mcnemar(lost: int, gained: int) -> float:
    """The two-sided exact p-value: how often fair coins would be at least as uneven.

    Args:
        lost: Rows that were right before and are wrong after.
        gained: Rows that were wrong before and are right after.

    Returns:
        min(1, 2·P[X ≤ min(lost, gained)]) for X ~ Binomial(lost + gained, ½): exact integers until the last division.
    """
    tosses: int = lost + gained
    term = tail = 1
    for k in range(min(lost, gained)):
        term = term * (tosses - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << tosses))


def difference_interval(both: int, lost: int, gained: int, neither: int) -> tuple[float, float]:
    """A 95 % interval for (share right after) − (share right before), of paired rows.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    method 10: Wilson's score intervals of both shares, put together with their correlation. It is not a point where no
    row changed, which says how much the number of rows can tell.
    """
    n = both + lost + gained + neither
    after, before = (both + gained) / n, (both + lost) / n
    low_after, high_after = _wilson(both + gained, n)
    low_before, high_before = _wilson(both + lost, n)
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    excess = both * neither - lost * gained
    corrected = max(excess - n / 2, 0.0) if excess > 0 else float(excess)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    below = _combined(after - low_after, high_before - before, phi)
    above = _combined(high_after - after, before - low_before, phi)
    return max(-1.0, after - before - below), min(1.0, after - before + above)


def _combined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _wilson(right: int, n: int) -> tuple[float, float]:
    share, z2 = right / n, Z_95 * Z_95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
