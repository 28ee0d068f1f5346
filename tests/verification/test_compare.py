"""Differences of arrays: what no tolerance excuses, what the scale is, how runs add up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnfold.verification.compare import EXACT, TOLERANCES, Difference, Tolerance, difference, tolerance_for


def array(values: object, dtype: str = "float32") -> np.ndarray:
    made = np.array(values, dtype=dtype)
    made.setflags(write=False)
    return made


def test_equal_arrays_differ_by_nothing() -> None:
    values = array([1.0, -2.0, 3.0])
    found = difference(values, values)
    assert found == Difference(max_abs=0.0, scale=3.0, compared=3)
    assert found.rel == 0.0
    assert found.within(EXACT)


def test_the_difference_is_measured_against_the_largest_value_before() -> None:
    found = difference(array([0.0, -8.0]), array([1.0, -8.0]))
    assert (found.max_abs, found.scale, found.rel) == (1.0, 8.0, 0.125)


def test_a_scale_of_zero_counts_as_one() -> None:
    found = difference(array([0.0, 0.0]), array([0.0, 0.25]))
    assert (found.scale, found.rel) == (0.0, 0.25)
    assert not found.within(TOLERANCES["float32"])
    assert difference(array([0.0]), array([1e-9])).within(TOLERANCES["float32"])


def test_float16_is_compared_in_float64() -> None:
    found = difference(array([60000.0], "float16"), array([-60000.0], "float16"))
    assert found.max_abs == 120000.0


def test_bfloat16_is_compared_as_a_float() -> None:
    import ml_dtypes

    before = np.array([1.0, 256.0]).astype(ml_dtypes.bfloat16)
    after = np.array([1.0, 258.0]).astype(ml_dtypes.bfloat16)
    assert difference(before, after).max_abs == 2.0
    assert difference(before, after).within(tolerance_for(before.dtype))


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (array([1.0]), array([1.0], "float64"), "its dtype is float32 before and float64 after"),
        (array([1.0]), array([1], "int64"), "its dtype is float32 before and int64 after"),
        (array([[1.0, 2.0]]), array([1.0, 2.0]), "its shape is 1×2 before and 2 after"),
        (array([1.0]), array(1.0), "its shape is 1 before and a scalar after"),
        (
            array([[1.0, 2.0], [3.0, 4.0]]),
            array([[1.0, 2.0], [math.nan, 4.0]]),
            "1 of 4 values are NaN or infinite on one side only, the first at [1, 0]: 3 before and nan after",
        ),
        (
            array([math.inf, 1.0]),
            array([-math.inf, math.inf]),
            "2 of 2 values are NaN or infinite on one side only, the first at [0]: inf before and -inf after",
        ),
        (
            array([math.nan]),
            array([math.inf]),
            "1 of 1 values are NaN or infinite on one side only, the first at [0]: nan before and inf after",
        ),
        (
            array([1, 2, 3], "int64"),
            array([1, 5, 6], "int64"),
            "2 of 3 int64 values differ, the first at [1]: 2 before and 5 after",
        ),
        (array([True]), array([False], "bool").astype(bool), "its dtype is float32 before and bool after"),
    ],
)
def test_what_no_tolerance_excuses(before: np.ndarray, after: np.ndarray, problem: str) -> None:
    found = difference(before, after)
    assert found.problem == problem
    assert found.max_abs is None
    assert found.rel is None
    assert not found.within(Tolerance(math.inf, math.inf))


def test_the_same_non_finite_values_are_equal_and_counted() -> None:
    values = array([math.nan, math.inf, -math.inf, 2.0])
    found = difference(values, array([math.nan, math.inf, -math.inf, 2.5]))
    assert found == Difference(max_abs=0.5, scale=2.0, compared=1, non_finite=3)


def test_nothing_but_nan_is_no_difference_and_no_comparison() -> None:
    found = difference(array([math.nan]), array([math.nan]))
    assert (found.max_abs, found.compared, found.non_finite) == (0.0, 0, 1)


def test_an_empty_output_is_no_difference() -> None:
    assert difference(array(np.zeros((0, 3))), array(np.zeros((0, 3)))) == Difference(0.0)
    assert difference(array([], "int64"), array([], "int64")) == Difference(0.0)


@pytest.mark.parametrize("values", [[1, 2], [True, False], ["a", "b"]])
def test_what_is_not_a_float_must_agree_exactly(values: list[object]) -> None:
    exact = np.array(values)
    assert difference(exact, exact.copy()).within(EXACT)
    assert tolerance_for(exact.dtype, rtol=1.0, atol=1.0) is EXACT
    assert difference(exact, exact[::-1].copy()).problem


def test_a_gap_beyond_float64_fails_without_a_warning() -> None:
    found = difference(array([1.7e308], "float64"), array([-1.7e308], "float64"))
    assert found.max_abs == math.inf
    assert not found.within(TOLERANCES["float64"])


def test_a_tolerance_takes_what_is_given_and_the_table_for_the_rest() -> None:
    tabled = TOLERANCES["float32"]
    assert tolerance_for(np.dtype("float32")) == tabled
    assert tolerance_for(np.dtype("float32"), rtol=0.5) == Tolerance(0.5, tabled.atol)
    assert tolerance_for(np.dtype("float32"), atol=0.0) == Tolerance(tabled.rtol, 0.0)


def test_the_wider_the_dtype_the_tighter_its_tolerance() -> None:
    ordered = [TOLERANCES[name].rtol for name in ("float64", "float32", "float16", "bfloat16")]
    assert ordered == sorted(ordered)


def test_the_tolerance_is_inclusive() -> None:
    found = difference(array([4.0]), array([4.5]))
    assert found.within(Tolerance(0.125, 0.0))
    assert found.within(Tolerance(0.0, 0.5))
    assert not found.within(Tolerance(0.124, 0.0))


def test_runs_add_up_to_the_worst_difference_and_the_largest_scale() -> None:
    one = difference(array([1.0, math.nan]), array([1.5, math.nan]))
    other = difference(array([8.0]), array([8.25]))
    assert one.merge(other) == other.merge(one) == Difference(max_abs=0.5, scale=8.0, compared=2, non_finite=1)


def test_a_problem_survives_every_other_run() -> None:
    good = difference(array([8.0]), array([8.0]))
    bad = difference(array([1.0]), array([math.nan]))
    for merged in (good.merge(bad), bad.merge(good)):
        assert merged.problem == bad.problem
        assert merged.max_abs is None
