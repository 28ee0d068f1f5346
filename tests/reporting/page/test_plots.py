from __future__ import annotations

import math

import pytest

from bnfold.reporting.page.plots import linear_axis, log_axis


def test_a_linear_axis_holds_all_and_one_that_must_be_on_it() -> None:
    axis = linear_axis([1.2, 1.4, None, math.nan], 1.0)
    places = [axis.at(value) for value in (1.0, 1.2, 1.4)]
    assert places == sorted(places)  # type: ignore[type-var]
    assert 0 < places[0] < places[2] < 100  # type: ignore[operator]
    assert [text for _, text in axis.ticks] == ["1.0", "1.1", "1.2", "1.3", "1.4"]


def test_an_axis_of_one_number_is_around_it() -> None:
    axis = linear_axis([1.0], 1.0)
    assert axis.at(1.0) == 50
    assert len(axis.ticks) >= 2


@pytest.mark.parametrize("values", [[3e-7, 4e-7], [1e-12, 1e3], [0.01, 0.02, 5.0], [1.0], [], [None, 0.0, -1.0]])
def test_a_log_axis_has_a_few_ticks_in_order(values: list[float | None]) -> None:
    axis = log_axis(values)
    places = [place for place, _ in axis.ticks]
    assert 2 <= len(places) <= 8
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    for value in values:
        assert (axis.at(value) is None) is (value is None or value <= 0)


def test_ticks_stand_at_what_they_say() -> None:
    for axis in (log_axis([0.01, 5.0]), linear_axis([0.2, 3.0], 1.0)):
        for place, text in axis.ticks:
            assert axis.at(float(text)) == pytest.approx(place, abs=0.02)


def test_what_does_not_fit_stands_at_the_end() -> None:
    assert log_axis([1.0, 10.0]).at(1e9) == 100
    assert log_axis([1.0, 10.0]).at(math.inf) is None
