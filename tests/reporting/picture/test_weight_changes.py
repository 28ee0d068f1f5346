from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bnfold.reporting.picture.views import Operator, Weight
from bnfold.reporting.picture.weights import PROFILE, WeightChange, compared


def operator(weight: Any, bias: Any = None, axis: int = 0) -> Operator:
    array: NDArray[Any] = np.asarray(weight)
    stored = None if bias is None else np.asarray(bias)
    return Operator("op", "Conv", weight=Weight(lambda: array, axis, None if stored is None else lambda: stored))


def found(before: Operator | None, after: Operator | None) -> WeightChange:
    change = compared(before, after)
    assert change is not None
    return change


ONES = np.ones((2, 3), np.float32)


def test_what_has_not_changed_moved_by_nothing() -> None:
    change = found(operator(ONES, [1.0]), operator(ONES.copy(), [1.0]))
    assert (change.moved, change.factor, change.bias, change.changed) == (0.0, (1.0, 1.0), "same", False)


@pytest.mark.parametrize(
    ("before", "after", "bias"),
    [
        (None, None, "none"),
        (None, [1.0], "new"),
        ([1.0], None, "gone"),
        ([1.0], [2.0], "changed"),
        ([1.0], [1.0], "same"),
    ],
)
def test_what_became_of_the_bias(before: Any, after: Any, bias: str) -> None:
    change = found(operator(ONES, before), operator(ONES, after))
    assert change.bias == bias
    assert change.changed is (bias not in ("none", "same"))


def test_a_channel_is_measured_along_its_axis() -> None:
    weight = [[1.0, -4.0], [2.0, 3.0], [0.5, 1.0]]
    assert found(operator(weight), operator(weight)).before.quantiles[::4] == (1.0, 4.0)  # type: ignore[union-attr]
    assert found(operator(weight, axis=1), operator(weight, axis=1)).before.quantiles[::4] == (2.0, 4.0)  # type: ignore[union-attr]


def test_how_far_is_part_of_the_largest_and_channels_have_their_factor() -> None:
    change = found(operator([[1.0, -4.0], [2.0, 3.0]]), operator([[2.0, -8.0], [1.0, 1.5]]))
    assert change.moved == 1.0
    assert change.factor == (0.5, 2.0)


def test_another_shape_has_no_distance() -> None:
    change = found(operator(ONES), operator(np.ones((2, 4))))
    assert (change.moved, change.factor, change.changed) == (None, None, True)


def test_what_is_new_or_gone_has_one_side() -> None:
    assert found(None, operator(ONES)).before is None
    assert found(operator(ONES), None).after is None
    assert found(operator(ONES), Operator("op", "Conv")).changed


def test_many_channels_are_a_profile_of_their_largest() -> None:
    weight = np.arange(1000.0).reshape(1000, 1)
    before = found(operator(weight), operator(weight)).before
    assert before is not None
    assert len(before.profile) == PROFILE
    assert before.profile[-1] == 999
    assert before.quantiles[2] == 499.5


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.bool_])
def test_every_type_of_number_is_read(dtype: Any) -> None:
    change = found(operator(ONES.astype(dtype)), operator(ONES.astype(dtype)))
    assert change.before is not None
    assert change.before.quantiles == (1.0,) * 5


def test_bfloat16_is_read() -> None:
    import ml_dtypes

    assert found(operator(ONES.astype(ml_dtypes.bfloat16)), operator(ONES.astype(ml_dtypes.bfloat16))).moved == 0


@pytest.mark.parametrize("weight", [np.array(["a"]), np.zeros((0, 3)), np.ones(3), np.array(1.0)])
def test_what_is_no_weight_is_left_out(weight: NDArray[Any]) -> None:
    assert compared(operator(weight), operator(weight)) is None


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 0.0])
def test_numbers_that_are_none_or_nothing_do_no_harm(number: float) -> None:
    change = found(operator(np.full((2, 3), number)), operator(ONES))
    made = change.to_dict()
    assert change.changed
    assert made["moved"] is None
    assert None in made["before"]["quantiles"] or number == 0
