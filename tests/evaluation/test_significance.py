"""McNemar's test by counting every way the coins can fall; the interval against a published example."""

from __future__ import annotations

import itertools

import pytest

from bnfold.evaluation.significance import difference_interval, mcnemar


@pytest.mark.parametrize(("lost", "gained"), [(a, b) for a in range(6) for b in range(6)])
def test_p_is_the_share_of_outcomes_at_least_as_uneven(lost: int, gained: int) -> None:
    outcomes = [sum(coins) for coins in itertools.product((0, 1), repeat=lost + gained)]
    least = abs(lost - gained)
    uneven = sum(abs(2 * heads - (lost + gained)) >= least for heads in outcomes)
    assert mcnemar(lost, gained) == pytest.approx(uneven / len(outcomes), rel=1e-12)


def test_many_rows_stay_exact() -> None:
    assert mcnemar(500, 500) == 1.0
    assert mcnemar(0, 1000) == 2.0 / 2**1000
    assert mcnemar(900, 1100) == pytest.approx(8.5e-6, rel=0.05)


def test_no_change_says_how_much_the_rows_can_tell() -> None:
    assert mcnemar(0, 0) == 1.0
    few, many = difference_interval(45, 0, 0, 5), difference_interval(4500, 0, 0, 500)
    assert few[0] < many[0] < 0 < many[1] < few[1]
    assert many == pytest.approx((-many[1], many[1]))


def test_the_interval_is_that_of_the_paper() -> None:
    """Newcombe 1998, table II, method 10: a, b, c, d = 36, 12, 2, 0 gives 0.0569 to 0.3404 for (b − c)/n."""
    assert difference_interval(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=6e-5)


@pytest.mark.parametrize(
    ("both", "lost", "gained", "neither"), [(3, 0, 0, 0), (0, 0, 0, 3), (0, 4, 0, 0), (0, 0, 4, 0)]
)
def test_the_interval_holds_the_difference_and_stays_within_one(
    both: int, lost: int, gained: int, neither: int
) -> None:
    low, high = difference_interval(both, lost, gained, neither)
    delta = (gained - lost) / (both + lost + gained + neither)
    assert -1 <= low <= delta <= high <= 1
