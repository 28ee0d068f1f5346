"""What a caller means by a name: a BatchNorm, a module around it, or a pattern of either."""

from __future__ import annotations

import pytest

from bnfold.errors import UsageError
from bnfold.planning.exclusion import excluded, patterns_of

NORMS = {"layer1.0.bn1": "layer1.0.bn1", "layer1.1.bn1": "layer1.1.bn1", "layer10.0.bn1": "layer10.0.bn1", "BN_7": ""}


def test_nothing_excluded_means_nothing() -> None:
    assert excluded((), NORMS) == frozenset()
    assert excluded((), {}) == frozenset()


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("layer1.0.bn1", {"layer1.0.bn1"}),
        ("BN_7", {"BN_7"}),
        ("layer1.0", {"layer1.0.bn1"}),
        ("layer1", {"layer1.0.bn1", "layer1.1.bn1"}),  # and not layer10
        ("layer?", {"layer1.0.bn1", "layer1.1.bn1"}),
        ("*.0.bn1", {"layer1.0.bn1", "layer10.0.bn1"}),
        ("*", set(NORMS)),
    ],
)
def test_a_pattern_means_names_and_the_modules_around_them(pattern: str, meant: set[str]) -> None:
    assert excluded((pattern,), NORMS) == meant


def test_several_patterns_mean_all_they_mean() -> None:
    assert excluded(("BN_7", "layer1.0"), NORMS) == {"BN_7", "layer1.0.bn1"}


def test_one_pattern_may_be_given_alone() -> None:
    assert patterns_of("bn1") == ("bn1",)
    assert patterns_of(["bn1", "bn2"]) == ("bn1", "bn2")


@pytest.mark.parametrize(
    ("pattern", "norms", "hint"),
    [
        ("layer1.0.bn2", NORMS, "Did you mean layer1.0.bn1 or layer10.0.bn1? See them all: bnfold inspect -v."),
        ("LAYER1", {"layer1.bn": "layer1.bn"}, "There are: 'layer1.bn', 'layer1'. See them all: bnfold inspect -v."),
        ("bn", {}, "See them all: bnfold inspect -v."),
        ("", NORMS, "There are: 'layer1.0.bn1', 'layer1.0', 'layer1', 'layer1.1.bn1', 'layer1.1' and 4 more. "
                    "See them all: bnfold inspect -v."),
    ],
)  # fmt: skip
def test_a_pattern_that_means_nothing_is_refused(pattern: str, norms: dict[str, str], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        excluded((pattern,), norms)
    assert caught.value.what == f"no BatchNorm is called {pattern!r}, and no module with one"
    assert caught.value.hint == hint
