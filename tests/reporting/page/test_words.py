from __future__ import annotations

import math

import pytest

from bnfold.reporting.page.words import milliseconds, number, percent, plural, size, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (4.2e-07, "4.2e-7"),
        (0.125, "0.125"),
        (1024, "1,024"),
        (123456, "123,456"),
        (1e30, "1e30"),
        (-1.5e-9, "-1.5e-9"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_a_number_is_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_span_of_one_number_is_that_number() -> None:
    assert span((1.0, 1.0)) == "1"
    assert span((0.98, 1.02)) == "0.98 … 1.02"
    assert span((None, 1.0)) == span(None) == "–"


def test_units_stand_behind_a_number() -> None:
    assert [size(value) for value in (None, 12, 889_000, 5_000_000_000_000)] == ["–", "12 B", "889 kB", "5e+03 GB"]
    assert milliseconds(0.549) == "0.549 ms"
    assert (plural(1, "row"), plural(1700, "row")) == ("1 row", "1,700 rows")
    assert percent(0.992) == "99.20 %"
