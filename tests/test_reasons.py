"""Reasons are read by people and by scripts: codes are stable, texts are sentences."""

from __future__ import annotations

import re

import pytest

from bnfold.reasons import Reason

CODES = {
    "SHARED-UNIT", "NONLINEAR", "ZERO-PAD", "NEGATIVE-GAMMA", "ZERO-GAMMA", "ILL-CONDITIONED", "OVERFLOW", "TRAINING",
    "NO-STATS", "NOT-CONSTANT", "SHARED-WEIGHT", "IO", "BOUNDARY", "DTYPE", "HOOK", "EXCLUDED",
}  # fmt: skip


def test_the_codes_are_these() -> None:
    """Scripts compare them: a code that changes or goes is a breaking change."""
    assert {reason.code for reason in Reason} == CODES
    assert len(Reason) == len(CODES), "two reasons with equal texts would be one member"


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)
def test_a_code_is_the_members_name(reason: Reason) -> None:
    assert reason.code == reason.name.replace("_", "-")
    assert re.fullmatch(r"[A-Z]+(-[A-Z]+)*", reason.code)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)
def test_a_text_completes_kept_because_and_the_advice_is_a_sentence(reason: Reason) -> None:
    assert reason.text[0].islower()
    assert not reason.text.endswith(".")
    assert reason.advice[0].isupper()
    assert reason.advice.endswith(".")
    assert "\n" not in reason.text + reason.advice


@pytest.mark.parametrize("field", ["code", "text", "advice"])
def test_no_two_reasons_say_the_same(field: str) -> None:
    assert len({getattr(reason, field) for reason in Reason}) == len(Reason)
