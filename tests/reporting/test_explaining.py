"""What is printed of reasons."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bnfold.reasons import Reason
from bnfold.reporting.explaining import print_explanation, print_reasons
from bnfold.reporting.explanations import EXPLANATIONS


def printed(reason: Reason, width: int) -> list[str]:
    stream = io.StringIO()
    print_explanation(reason, Console(file=stream, width=width))
    return stream.getvalue().splitlines()


def test_every_reason_has_an_explanation_with_something_to_do() -> None:
    assert list(EXPLANATIONS) == list(Reason)
    assert all(explanation.change for explanation in EXPLANATIONS.values())


def test_all_reasons_take_two_sentences_each() -> None:
    stream = io.StringIO()
    print_reasons([Reason.IO, Reason.HOOK], Console(file=stream, width=200))
    assert stream.getvalue().splitlines() == [
        "IO",
        "  The value is a graph input or output, whose meaning must not change.",
        f"  {Reason.IO.advice}",
        "",
        "HOOK",
        "  A hook observes or changes the value.",
        f"  {Reason.HOOK.advice}",
    ]


@pytest.mark.parametrize("reason", Reason)
def test_a_picture_fits_80_columns_and_is_left_out_where_it_does_not_fit(reason: Reason) -> None:
    picture = [f"    {line}" for line in EXPLANATIONS[reason].picture.splitlines()]
    wide, narrow = printed(reason, 80), printed(reason, 40)
    start = wide.index(picture[0])
    assert [line.rstrip() for line in wide[start : start + len(picture)]] == [line.rstrip() for line in picture]
    assert max(map(len, narrow)) <= 40
    if max(map(len, picture)) > 40:
        assert not set(picture) & set(narrow)


def test_a_second_line_of_advice_stands_under_the_first() -> None:
    lines = printed(Reason.ZERO_PAD, 80)
    first = next(i for i, line in enumerate(lines) if line.startswith("  - In the model: put a convolution"))
    assert lines[first + 1].startswith("    ")
