"""Per-channel affines by constants in every spelling, and operators that let a unit pass only with its sign or zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_case import Case, Folded, check, fold


def conv_binary(op: str, shape: tuple[int, ...], left: bool, low: float = 0.5) -> onnx.ModelProto:
    """Conv → op with a constant → Sigmoid."""
    c = Case()
    y = c.conv(c.input("N", 3, "H", "W"), 4, 3, 1, 1)
    constant = c.draw(*shape, low=low)
    return c.model(c.op("Sigmoid", c.op(op, *((constant, y) if left else (y, constant)))))


def affines(folded: Folded) -> list[tuple[str, str]]:
    return [(site.op, site.status) for site in folded.plan.affines]


def test_a_constant_over_a_feature_is_no_affine() -> None:
    folded = check(conv_binary("Div", (4, 1, 1), left=True))
    assert affines(folded) == []
    assert folded.ops() == ["Conv", "Div", "Sigmoid"]


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan, 5e-324])
def test_division_by_zero_and_its_kin_stays(value: float) -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    y = c.op("Div", y, c.const(np.array([1, value, 2, 3]).reshape(4, 1, 1)))
    assert fold(c.model(c.op("Sigmoid", c.bn(y, 4)))).ops().count("Div") == (1 if value != np.inf else 0)


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_constant_that_is_not_finite_stays(op: str, value: float) -> None:
    """Infinity times a new unit, or minus a new shift, would be NaN somewhere."""
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    y = c.op(op, y, c.const(np.array([1, value, 2, 3]).reshape(4, 1, 1)))
    check(c.model(c.op("Sigmoid", c.bn(y, 4))), "NONLINEAR")


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_multiplier_that_varies_by_position_lets_only_a_scale_through(op: str) -> None:
    for given, kept in (({}, ("ZERO-PAD",)), ({"beta": np.zeros(4), "mean": np.zeros(4)}, ())):
        c = Case()
        y = c.conv(c.input("N", 3, "H", 6), 4, 3, 1, 1)
        y = c.bn(c.op(op, y, c.draw(6, low=0.5)), 4, **given)
        check(c.model(c.op("Sigmoid", y)), *kept)


@pytest.mark.parametrize("op", ["Mul", "Add", "Div", "Sub"])
@pytest.mark.parametrize("shape", [(1, 4, 5, 5), (4, 5, 1), (1, 1, 4, 1, 1), (1, 1, 1, 1, 1), (5, 1, 1, 1)], ids=str)
def test_a_constant_that_enlarges_the_tensor_stays(op: str, shape: tuple[int, ...]) -> None:
    """Equal everywhere, but it broadcasts the feature: without it the result would have another shape."""
    c = Case()
    y = c.op("GlobalAveragePool", c.conv(c.input(1, 3, 5, 5), 4, 3, 1, 1))
    constant = c.const(np.full(shape, 2.0))
    check(c.model(c.op("Sigmoid", c.op(op, y, constant))))


def test_a_constant_that_may_enlarge_a_dynamic_axis_stays() -> None:
    """With N = 1 the result has three rows."""
    c = Case()
    y = c.op("Gemm", c.input("N", 3), c.draw(3, 4))
    proto = c.model(c.op("Sigmoid", c.op("Mul", y, c.const(np.full((3, 4), 2.0)))))
    check(proto, sizes=({"N": 1}, {"N": 3}))


def test_an_enlarging_sum_still_takes_up_a_shift() -> None:
    c = Case()
    y = c.op("GlobalAveragePool", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1))
    y = c.op("Add", y, c.const(np.broadcast_to(c.rng.standard_normal((1, 4, 1, 1)), (1, 4, 2, 2))))
    assert check(c.model(c.bn(y, 4, gamma=c.mixed(4)))).ops() == ["Conv", "GlobalAveragePool", "Add"]


def test_arithmetic_of_integers_is_no_affine() -> None:
    c = Case()
    i = c.op("Mul", c.input("N", 3, name="i", dtype=np.int64), c.ints(2))
    y = c.op("Mul", c.op("Cast", i, to=onnx.TensorProto.DOUBLE), c.const(2.0))
    folded = check(c.model(c.op("MatMul", y, c.draw(3, 4)), i, **{i: onnx.TensorProto.INT64}))
    assert folded.ops().count("Mul") == 1


SHAPES = [(), (1,), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 1), (1, 4, 6, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("op", "left"),
    [("Mul", False), ("Mul", True), ("Add", False), ("Add", True), ("Sub", False), ("Sub", True), ("Div", False)],
)
def test_per_channel_arithmetic_folds_into_the_conv(op: str, shape: tuple[int, ...], left: bool) -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 6, 6), 4, 3, 1, 1)
    array = np.broadcast_to(c.rng.uniform(0.5, 2, (*shape[:-2], 1, 1) if len(shape) == 4 else shape), shape)
    constant = c.const(array)
    folded = check(c.model(c.op("Sigmoid", c.op(op, *((constant, y) if left else (y, constant))))))
    assert affines(folded) == [(op, "folded")]
    assert folded.ops() == ["Conv", "Sigmoid"]


def test_negation_folds() -> None:
    c = Case()
    y = c.op("Neg", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1))
    assert check(c.model(c.op("Sigmoid", c.bn(c.op("Neg", y), 4)))).ops() == ["Conv", "Sigmoid"]


def test_a_constant_of_rank_one_aligns_with_the_last_axis() -> None:
    """Four channels and four columns: `(4,)` is the columns."""
    c = Case()
    y = c.op("Add", c.conv(c.input("N", 3, 5, 4), 4, 3, 1, 1), c.draw(4))
    assert check(c.model(c.op("Sigmoid", c.bn(y, 4)))).ops() == ["Conv", "Add", "Sigmoid"]


def test_a_sum_that_varies_by_position_takes_up_a_shift() -> None:
    for left in (False, True):
        for op in ("Add", "Sub"):
            c = Case()
            y, p = c.conv(c.input("N", 3, 5, 6), 4, 3, 1, 1), c.draw(1, 4, 5, 6)
            y = c.op(op, *((p, y) if left else (y, p)))
            assert check(c.model(c.bn(y, 4, gamma=c.mixed(4)))).ops() == ["Conv", op]


def test_preprocessing_folds_into_the_first_conv() -> None:
    c = Case()
    x = c.op(
        "Div", c.op("Sub", c.op("Mul", c.input("N", 3, "H", "W"), c.const(1 / 255)), c.draw(3, 1, 1)), c.draw(3, 1, 1)
    )
    assert check(c.model(c.conv(x, 4, 3, 3, 3))).ops() == ["Conv"]


def test_layer_scale_folds_into_the_conv_of_its_branch() -> None:
    c = Case()
    x = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    y = c.op("Mul", c.conv(c.op("Relu", x), 4, 4, 1, 1), c.const(np.full((4, 1, 1), 1e-5)))
    assert check(c.model(c.op("Sigmoid", c.op("Add", x, y)))).ops() == ["Conv", "Relu", "Conv", "Add", "Sigmoid"]


def test_a_zero_multiplier_folds_where_nothing_divides_by_it() -> None:
    for value in (0.0, np.array([1, 0, -2, 3.0]).reshape(4, 1, 1)):
        c = Case()
        y = c.op("Mul", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), c.const(value))
        assert check(c.model(c.op("Sigmoid", c.bn(y, 4)))).ops() == ["Conv", "Sigmoid"]


@pytest.mark.parametrize(
    "given",
    [
        {"var": [1, np.nan, 2, 3]},
        {"var": [1, np.inf, 2, 3]},
        {"var": [1, -1, 2, 3]},
        {"var": [1, 0, 2, 3], "epsilon": 0.0},
        {"var": [1, 0, 2, 3], "gamma": [1, 0, 2, 3], "epsilon": 0.0},
        {"mean": [1, np.inf, 2, 3]},
        {"mean": [1, np.nan, 2, 3]},
        {"gamma": [1, np.inf, 2, 3]},
        {"beta": [1, np.nan, 2, 3]},
    ],
    ids=str,
)
@pytest.mark.parametrize("followed", [False, True])
def test_damaged_statistics_stay(given: dict[str, Any], followed: bool) -> None:
    """Also where a healthy BatchNorm behind would be absorbed by the damaged one."""
    c = Case()
    y = c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4, **given)
    check(c.model(c.op("Sigmoid", c.bn(y, 4) if followed else y)), "OVERFLOW", *["NONLINEAR"] * followed)


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 0.1, 10.0])
def test_epsilon_of_any_size(epsilon: float) -> None:
    c = Case()
    check(c.model(c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4, epsilon=epsilon)))


ZERO = np.array([1.0, 0.0, -2.0, 0.5])


def test_zero_gamma_behind_a_conv_folds() -> None:
    c = Case()
    check(c.model(c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4, gamma=ZERO)))


def test_zero_gamma_before_a_conv_folds_since_nothing_divides_by_it() -> None:
    c = Case()
    check(c.model(c.conv(c.bn(c.input("N", 4, 5, 5), 4, gamma=ZERO), 3, 4, 3, 3)))


def test_zero_gamma_between_rigid_operators_stays() -> None:
    c = Case()
    y = c.bn(c.op("Sigmoid", c.input("N", 4, 5, 5)), 4, gamma=ZERO)
    assert fold(c.model(c.op("Sigmoid", y))).plan.kept == 1


def test_a_residual_stream_with_a_zero_gamma_on_its_branch() -> None:
    """Zero-initialised residual branches: the branch adds the constant beta."""
    c = Case()
    x = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    y = c.bn(c.conv(c.op("Relu", x), 4, 4, 1, 1), 4, gamma=np.zeros(4))
    check(c.model(c.op("Relu", c.op("Add", x, y))))


@pytest.mark.parametrize("shift", [-0.5, 0.0])
def test_a_dead_channel_before_a_relu_is_zero(shift: float) -> None:
    """`max(0·x + t, 0)` with `t ≤ 0`: zero, whatever pads it."""
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    stream = c.op("Add", y, c.conv(y, 4, 4, 1, 1))
    y = c.op("Relu", c.bn(stream, 4, gamma=[1, 0, 2, 0.5], beta=[1, shift, -1, 0], mean=np.zeros(4)))
    y = c.conv(y, 4, 4, 3, 3, pads=[1, 1, 1, 1])
    folded = fold(c.model(c.op("Sigmoid", c.op("Add", stream, y))))
    assert folded.plan.kept <= 1


def test_bn_relu_conv_with_dead_and_constant_channels() -> None:
    """Rigid before, so the BatchNorm stays or folds, but the function must be that of the model either way."""
    for shift in (-0.5, 0.0, 0.7):
        for pads in ([0] * 4, [1] * 4):
            c = Case()
            x = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
            y = c.op("Relu", c.bn(x, 4, gamma=[1, 0, 2, 0], beta=[1, shift, -1, shift], mean=np.zeros(4)))
            check(c.model(c.conv(y, 4, 4, 3, 3, pads=pads)))


@pytest.mark.parametrize("between", ["Relu", "MaxPool", "LeakyRelu", "Abs"])
def test_negative_gamma_before_a_relu_or_maxpool(between: str) -> None:
    """Behind a conv it folds backwards; where only the conv behind could take it, the sign is in the way."""
    settings = {"kernel_shape": [2, 2]} if between == "MaxPool" else {}
    for negative, kept in ((True, ("NEGATIVE-GAMMA",)), (False, ())):
        c = Case()
        gamma = c.mixed(4) if negative else None
        shifts = {"beta": np.zeros(4), "mean": np.zeros(4), **({} if gamma is None else {"gamma": gamma})}
        y = c.op(between, c.bn(c.input("N", 4, 6, 6), 4, **shifts), **settings)
        check(c.model(c.conv(y, 3, 4, 1, 1)), *kept)
    c = Case()
    y = c.op(between, c.bn(c.conv(c.input("N", 3, 6, 6), 4, 3, 1, 1), 4, gamma=c.mixed(4)), **settings)
    check(c.model(c.conv(y, 3, 4, 1, 1)))


def test_preactivation_blocks_share_one_stream() -> None:
    c = Case()
    x = c.conv(c.input("N", 3, "H", "W"), 4, 3, 3, 3, pads=[1, 1, 1, 1])
    for _ in range(4):
        y = c.conv(c.op("Relu", c.bn(x, 4)), 4, 4, 3, 3, pads=[1, 1, 1, 1])
        x = c.op("Add", x, c.conv(c.op("Relu", c.bn(y, 4, gamma=c.mixed(4))), 4, 4, 3, 3, pads=[1, 1, 1, 1]))
    check(c.model(c.op("GlobalAveragePool", c.op("Relu", c.bn(x, 4)))))


ACTIVATIONS = [
    pytest.param("Clip", (0.0, None), (), id="Clip at 0 is ReLU"),
    pytest.param("Clip", (0.0, 6.0), ("NONLINEAR",), id="ReLU6"),
    pytest.param("Clip", (-1.0, None), ("NONLINEAR",), id="Clip below 0"),
    pytest.param("Clip", (None, 0.0), ("NONLINEAR",), id="Clip above"),
    pytest.param("Clip", (None, None), (), id="Clip without bounds"),
    pytest.param("Clip", (0.0, np.finfo(np.float64).max), (), id="Clip to the largest float"),
    pytest.param("Clip", (-np.inf, np.inf), (), id="Clip to infinity"),
]


@pytest.mark.parametrize(("op", "bounds", "kept"), ACTIVATIONS)
def test_clip(op: str, bounds: tuple[float | None, float | None], kept: tuple[str, ...]) -> None:
    c = Case()
    x = c.op("Sigmoid", c.input("N", 4, 5, 5))
    y = c.bn(x, 4, beta=np.zeros(4), mean=np.zeros(4))
    y = c.op(op, y, *("" if b is None else c.const(b) for b in bounds))
    check(c.model(c.conv(y, 3, 4, 1, 1)), *kept)


def test_clip_of_opset_6_has_its_bounds_as_attributes() -> None:
    for settings, kept in (({"min": 0.0}, ()), ({"min": 0.0, "max": 6.0}, ("NONLINEAR",)), ({}, ())):
        c = Case(opset=10, dtype=np.float32)
        x = c.op("Sigmoid", c.input("N", 4, 5, 5))
        y = c.op("Clip", c.bn(x, 4, beta=np.zeros(4), mean=np.zeros(4)), **settings)
        check(c.model(c.conv(y, 3, 4, 1, 1)), *kept, ort=True)


def test_clip_with_a_computed_bound() -> None:
    c = Case()
    x = c.op("Sigmoid", c.input("N", 4, 5, 5))
    low = c.op("ReduceMin", x, keepdims=0)
    check(c.model(c.conv(c.op("Clip", c.bn(x, 4), low), 3, 4, 1, 1)), "NONLINEAR")


@pytest.mark.parametrize("slope", [(), (1,), (4, 1, 1), (1, 4, 1, 1), (4, 5, 5)], ids=str)
def test_prelu(slope: tuple[int, ...]) -> None:
    c = Case()
    x = c.bn(c.op("Sigmoid", c.input("N", 4, 5, 5)), 4, beta=np.zeros(4), mean=np.zeros(4))
    check(c.model(c.conv(c.op("PRelu", x, c.draw(*slope)), 3, 4, 1, 1)))


def test_prelu_whose_slope_is_computed() -> None:
    c = Case()
    x = c.op("Sigmoid", c.input("N", 4, 5, 5))
    y = c.op("PRelu", c.bn(x, 4, beta=np.zeros(4), mean=np.zeros(4)), c.op("GlobalAveragePool", x))
    check(c.model(c.conv(y, 3, 4, 1, 1)))


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("shape", [(), (4, 1, 1), (1, 4, 5, 5), (5,)], ids=str)
def test_extremum_with_a_constant_stores_it_in_the_new_unit(op: str, shape: tuple[int, ...]) -> None:
    c = Case()
    y = c.op(op, c.draw(*shape), c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1))
    check(c.model(c.bn(y, 4)))


def test_extremum_with_a_negative_gamma_behind_it_stays() -> None:
    c = Case()
    y = c.op("Max", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), c.draw(4, 1, 1))
    check(c.model(c.bn(y, 4, gamma=c.mixed(4))), "NEGATIVE-GAMMA")


def test_extremum_of_features_and_constants() -> None:
    c = Case()
    x = c.input("N", 3, 5, 5)
    y = c.op("Max", c.conv(x, 4, 3, 1, 1), c.draw(4, 1, 1), c.conv(x, 4, 3, 1, 1), c.const(-np.inf))
    check(c.model(c.bn(y, 4)))


def test_maximum_of_one_operand_is_it() -> None:
    c = Case()
    check(c.model(c.bn(c.op("Max", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)), 4)))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(), (4, 1, 1), (1, 4, 5, 5)], ids=str)
def test_where_with_a_constant(first: bool, shape: tuple[int, ...]) -> None:
    c = Case()
    mask = c.input("N", 1, 5, 5, name="mask", dtype=bool)
    y, k = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), c.draw(*shape)
    y = c.op("Where", mask, *((k, y) if first else (y, k)))
    check(c.model(c.bn(y, 4, gamma=c.mixed(4))))


def test_where_with_a_condition_on_the_feature_itself() -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    y = c.op("Where", c.op("Greater", y, c.const(0.0)), y, c.const(-1.0))
    check(c.model(c.op("Sigmoid", c.bn(y, 4))), "NONLINEAR")


def test_where_fills_with_minus_infinity() -> None:
    c = Case()
    mask = c.input("N", 1, 5, 5, name="mask", dtype=bool)
    y = c.op("Where", mask, c.const(-np.inf), c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1))
    check(c.model(c.bn(y, 4)))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sum_of_any_number(count: int) -> None:
    c = Case()
    x = c.input("N", 3, 5, 5)
    y = c.op("Sum", *(c.bn(c.conv(x, 4, 3, 1, 1), 4, gamma=c.mixed(4)) for _ in range(count)))
    check(c.model(c.bn(y, 4, gamma=c.mixed(4))))


def test_sum_of_one_value_twice() -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    check(c.model(c.bn(c.op("Sum", y, y, y), 4)))


def test_sum_with_a_broadcast_operand() -> None:
    c = Case()
    x = c.input("N", 3, 5, 5)
    y = c.op("Sum", c.conv(x, 4, 3, 1, 1), c.conv(c.op("GlobalAveragePool", x), 4, 3, 1, 1))
    check(c.model(c.bn(y, 4, gamma=c.mixed(4))))


def test_difference_of_features() -> None:
    c = Case()
    x = c.input("N", 3, 5, 5)
    y = c.op("Sub", c.conv(x, 4, 3, 1, 1), c.conv(x, 4, 3, 1, 1))
    check(c.model(c.bn(y, 4, gamma=c.mixed(4))))


def test_a_feature_minus_itself() -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    check(c.model(c.bn(c.op("Sub", y, y), 4)), "IO")


def test_squeeze_and_excite() -> None:
    """The gate keeps its unit; the feature's scale passes, its shift does not."""
    for given, kept in (({"beta": np.zeros(4), "mean": np.zeros(4)}, ()), ({}, ("NONLINEAR",))):
        c = Case()
        y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
        gate = c.op("Sigmoid", c.conv(c.op("GlobalAveragePool", y), 4, 4, 1, 1))
        check(c.model(c.op("Sigmoid", c.bn(c.op("Mul", y, gate), 4, **given))), *kept)


def test_a_square_and_a_quotient_of_features() -> None:
    for op, kept in (("Mul", 1), ("Div", 1)):
        c = Case()
        y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
        other = y if op == "Mul" else c.op("Exp", y)
        folded = fold(c.model(c.op("Sigmoid", c.bn(c.op(op, y, other), 4))))
        assert folded.plan.kept == kept


def test_two_position_tables_are_one_once_the_batch_norm_before_them_is_gone() -> None:
    """Behind the input itself, which has no channels of its own, each element of a table has a unit."""
    c = Case()
    x = c.bn(c.input(2, 2, 3, 4), 2)
    y = c.op("Sub", c.op("Add", x, c.draw(1, 2, 3, 4)), c.draw(1, 2, 3, 4))
    y = c.op("ConvTranspose", y, c.draw(2, 1, 2, 2), strides=[2, 2], group=2)
    assert check(c.model(y)).ops() == ["Add", "ConvTranspose"]


def test_a_weight_that_became_zero_lets_a_shift_pass() -> None:
    """The BatchNorm behind has only gammas of 0, so the convolution's padding is no longer to be seen."""
    c = Case()
    y = c.conv(c.bn(c.input("N", 3, 6, 6), 3, gamma=np.zeros(3)), 3, 3, 3, 3, pads=[1, 1, 1, 1])
    check(c.model(c.bn(y, 3, gamma=np.zeros(3))))
