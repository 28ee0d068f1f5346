"""Pairs that a too generous certificate would prove equal, and beside each the pair that it must prove."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from pairs import Shape, dead, graph, node, per_channel, proved

RNG = np.random.default_rng(5)
FULL = RNG.normal(size=(3, 3, 3, 3))
POINT = RNG.normal(size=(3, 3, 1, 1))
BIAS = np.array([1.0, 0.1, 0.2])


def test_a_constant_added_behind_padding_reaches_all_taps() -> None:
    """On one pixel, a convolution that pads shows its middle tap only, but padded numbers are there for all of them."""
    shift, pads = np.array([0.3, 0.2, -0.1]), np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    before = graph(
        [node("Pad", "x pads", "p"), node("Add", "p c", "a"), node("Conv", "a w", "y")],
        {"c": per_channel(shift), "w": FULL, "pads": pads},
        shape=["N", 3, 1, 1],
    )

    def after(bias: np.ndarray) -> onnx.ModelProto:
        return graph([node("Conv", "x w b", "y", pads=[1] * 4)], {"w": FULL, "b": bias}, shape=["N", 3, 1, 1])

    assert proved(before, after((FULL * shift.reshape(1, -1, 1, 1)).sum((1, 2, 3)))).proved
    assert not proved(before, after((FULL[:, :, 1, 1] * shift).sum(1))).proved


def test_a_constant_channel_has_no_scale_to_hand_back() -> None:
    """What a ReLU shows of the unit of a constant channel says nothing about what stands before an addition."""
    scaled = POINT.copy()
    scaled[:, 0] *= 1.5
    rest = [node("Conv", "r v", "z"), node("Add", "s z", "y")]
    constants = {"c": dead(POINT, 0), "k": BIAS}
    before = graph(
        [
            node("Conv", "x c k", "b"),
            node("Add", "b o", "n"),
            node("Relu", "n", "r"),
            node("Add", "n x", "s"),
            *rest,
        ],
        {**constants, "o": per_channel(np.array([0.5, 0.0, 0.0])), "v": POINT},
    )

    def after(bias: float) -> onnx.ModelProto:
        last = np.array([bias, 0.0, 0.0])
        return graph(
            [
                node("Conv", "x c k", "b"),
                node("Relu", "b", "r"),
                node("Add", "b x", "t"),
                node("Add", "t o", "s"),
                *rest,
            ],
            {**constants, "v": scaled, "o": per_channel(last)},
        )

    assert not proved(before, after(0.0)).proved
    assert proved(before, after(0.5)).proved


def test_a_constant_channel_that_is_the_same_keeps_its_value() -> None:
    """It is the same behind a ReLU; in front of it, nothing else follows."""
    rest = [node("Conv", "r v", "z"), node("Add", "s z", "y")]
    unit = np.array([1.0, 0.5, 1.0])
    before = graph(
        [node("Conv", "x c k", "b"), node("Add", "b o", "n"), node("Relu", "n", "r"), node("Add", "n x", "s"), *rest],
        {"c": dead(POINT, 0), "v": POINT, "k": BIAS, "o": per_channel(np.array([0.5, 0.0, 0.0]))},
    )

    def after(factor: float) -> onnx.ModelProto:
        return graph(
            [
                node("Conv", "x c k", "b"),
                node("Relu", "b", "r"),
                node("Mul", "b f", "m"),
                node("Add", "m x", "s"),
                *rest,
            ],
            {
                "c": dead(POINT, 0) * unit.reshape(3, 1, 1, 1),
                "v": POINT / unit.reshape(1, 3, 1, 1),
                "k": (BIAS + np.array([0.5, 0.0, 0.0])) * unit,
                "f": per_channel(np.array([factor, 2.0, 1.0])),
            },
        )

    assert not proved(before, after(0.0)).proved
    assert proved(before, after(1.0)).proved


@pytest.mark.parametrize("counted", [0, 1])
def test_a_constant_is_none_behind_padded_zeros(counted: int) -> None:
    """An average that counts the zeros around a constant channel gives less at the border."""
    pool = node("AveragePool", "b", "n", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=counted)
    start = [node("Conv", "x c k", "b"), pool]
    gone = POINT.copy()
    gone[:, 0] = 0
    constants = {"c": dead(POINT, 0), "k": BIAS}
    before = graph([*start, node("Conv", "n v", "y")], {**constants, "v": POINT})
    after = graph([*start, node("Conv", "n v q", "y")], {**constants, "v": gone, "q": POINT[:, 0, 0, 0]})
    assert proved(before, after).proved is (counted == 0)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Max", {}), ("Min", {}), ("Concat", {"axis": 1}), ("Concat", {"axis": 0})],
)
def test_a_constant_operand_is_not_a_computed_one(op: str, attributes: dict[str, int]) -> None:
    c = np.zeros((1, 3, 6, 6))
    before = graph([node(op, "x c", "y", **attributes)], {"c": c}, shape=[1, 3, 6, 6])
    after = graph([node("Relu", "x", "r"), node(op, "x r", "y", **attributes)], shape=[1, 3, 6, 6])
    assert proved(before, before).proved
    assert not proved(before, after).proved
    assert not proved(after, before).proved


def test_where_compares_constants_that_are_no_floats() -> None:
    def model(values: list[int]) -> onnx.ModelProto:
        return graph(
            [node("Greater", "x z", "c"), node("Where", "c one two", "y")],
            {"z": np.zeros(1), "one": np.array([values[0]]), "two": np.array([values[1]])},
            outputs={"y": TensorProto.INT64},
        )

    assert proved(model([1, 2]), model([1, 2])).proved
    assert not proved(model([1, 2]), model([1, 3])).proved


@pytest.mark.parametrize("which", ["gamma", "weight", "table"])
def test_parameters_that_are_computed_after_are_others(which: str) -> None:
    """A normalisation, a recurrent layer, an embedding: constant before, made of another input after."""
    ops = {
        "gamma": (node("LayerNormalization", "x p b", "y"), [3], {"b": np.zeros(3)}),
        "weight": (node("RNN", "x p r", "y", hidden_size=2), [1, 2, 3], {"r": np.ones((1, 2, 2))}),
        "table": (node("Gather", "p i", "y"), [4, 3], {"i": np.array([0, 1, 2])}),
    }
    op, shape, rest = ops[which]
    start = [] if which != "table" else [node("Relu", "x", "unused")]
    values = RNG.normal(size=shape)
    one = graph([*start, op], {**rest, "p": values}, shape=[5, 2, 3])
    inputs = {"q": (TensorProto.FLOAT, list(shape))}
    two = graph([*start, node("Identity", "q", "p"), op], rest, shape=[5, 2, 3], inputs=inputs)
    assert proved(one, one).proved
    assert not proved(one, two).proved
    assert not proved(two, one).proved


def test_the_shape_of_a_sum_is_not_that_of_anything() -> None:
    """Elements that are arranged as those of a sum of two are not arranged as those of another tensor."""
    inputs = {name: (TensorProto.FLOAT, ["N", 4, 6]) for name in ("p", "q")}
    inputs["s"] = (TensorProto.FLOAT, ["N", 6, 4])
    relus = [node("Relu", name, f"{name}r") for name in "pqs"]

    def model(read: str) -> onnx.ModelProto:
        return graph(
            [
                *relus,
                *([node("Add", "pr qr", "a")] if read == "a" else []),
                node("Shape", read, "n"),
                node("Reshape", "x n", "y"),
            ],
            shape=["N", 24],
            inputs=inputs,
        )

    assert proved(model("a"), model("a")).proved
    assert not proved(model("a"), model("sr")).proved


def test_halves_are_not_thirds() -> None:
    def model(outputs: str) -> onnx.ModelProto:
        return graph(
            [node("Split", "x", outputs, axis=2), node("ReduceSum", "a axes", "y")],
            {"axes": np.array([1, 2, 3])},
            opset=13,
        )

    assert proved(model("a b"), model("a b")).proved
    assert not proved(model("a b"), model("a b c")).proved


def test_the_default_of_an_input_is_part_of_the_model() -> None:
    """A caller may leave out an input that has an initializer."""

    def model(default: float | None) -> onnx.ModelProto:
        constants = {} if default is None else {"p": np.array([default])}
        return graph([node("Mul", "x p", "y")], constants, inputs={"p": (TensorProto.FLOAT, [1])})

    assert proved(model(2.0), model(2.0)).proved
    assert not proved(model(2.0), model(3.0)).proved
    assert not proved(model(2.0), model(None)).proved
    assert not proved(model(None), model(2.0)).proved


@pytest.mark.parametrize("axis", [{}, {"axis": 1}])
def test_an_operator_means_what_its_version_says(axis: dict[str, int]) -> None:
    """Softmax up to opset 12 is over all axes from its axis on, which is 1 unless said."""
    softmax, relu = [node("Softmax", "x", "y", **axis)], [node("Relu", "x", "y")]
    assert proved(graph(softmax, opset=12), graph(softmax, opset=11)).proved
    assert proved(graph(relu, opset=12), graph(relu, opset=18)).proved
    assert not proved(graph(softmax, opset=12), graph(softmax, opset=18)).proved


def test_sizes_of_two_models_with_one_name_are_not_the_same() -> None:
    """Shape inference names sizes that it does not know; the same name on both sides says nothing."""

    def model(target: list[int]) -> onnx.ModelProto:
        return graph([node("Reshape", "x s", "y")], {"s": np.array(target)}, shape=["A", "B", "C"])

    assert proved(model([0, -1]), model([0, -1])).proved
    assert not proved(model([0, -1]), model([-1, 0])).proved
    assert not proved(model([-1, 0]), model([0, -1])).proved


def test_what_is_lost_does_not_come_back_by_small_factors() -> None:
    """A channel that the folded model does not hold stays unknown however often it is multiplied with little."""
    tiny = per_channel(np.full(3, 1e-38))
    rest = [
        node("Abs", "b", "r"),
        node("Mul", "r t", "m0"),
        node("Mul", "m0 t", "m1"),
        node("Mul", "m1 t", "m2"),
        node("Conv", "m2 v", "y"),
    ]
    before = graph([node("Conv", "x c k", "b"), *rest], {"c": POINT, "k": BIAS, "t": tiny, "v": POINT})
    after = graph([node("Conv", "x c k", "b"), *rest], {"c": dead(POINT, 0), "k": BIAS, "t": tiny, "v": POINT})
    assert proved(before, before).proved
    assert not proved(before, after).proved


@pytest.mark.parametrize(
    ("gamma", "constant", "same"),
    [(1e-30, 1.0, True), (1e-30, 1.0 + 1e-5, False), (1e-30, 0.0, False), (1e-6, 1.0, False), (0.0, 1.0, True)],
)
def test_only_a_gamma_that_rounds_away_may_become_a_constant(gamma: float, constant: float, same: bool) -> None:
    """What is left of its channel is beta itself, and not something near it."""
    parameters = {
        "g": np.array([gamma, 1, 1]),
        "b": np.ones(3),
        "m": np.zeros(3),
        "v": np.full(3, 1 - 1e-5),
    }
    before = graph([node("Conv", "x c", "k"), node("BatchNormalization", "k g b m v", "y")], {"c": POINT, **parameters})
    after = graph([node("Conv", "x c k", "y")], {"c": dead(POINT, 0), "k": np.array([constant, 1, 1])})
    assert proved(before, after).proved == same


@pytest.mark.parametrize("op", ["RandomNormalLike", "Bernoulli"])
def test_one_draw_is_not_two(op: str) -> None:
    two = graph([node(op, "x", "a"), node(op, "x", "b"), node("Sub", "a b", "y")])
    one = graph([node(op, "x", "a"), node("Sub", "a a", "y")])
    assert not proved(two, one).proved


def test_a_tensor_that_is_repeated_is_another_one() -> None:
    """Zero times an image makes a pixel as large as the image; a sum over it counts it that often."""
    inputs = {"p": (TensorProto.FLOAT, ["N", 3, 1, 1])}
    sums = node("ReduceSum", "r axes", "y")
    axes = np.array([2, 3])
    before = graph([node("Relu", "p", "r"), sums], {"axes": axes}, inputs=inputs)
    after = graph(
        [node("Mul", "x zero", "o"), node("Add", "p o", "large"), node("Relu", "large", "r"), sums],
        {"axes": axes, "zero": np.zeros(1).reshape(1, 1, 1, 1)},
        inputs=inputs,
    )
    assert not proved(before, after).proved
    assert not proved(after, before).proved


def test_a_constant_may_repeat_a_tensor_of_unknown_size() -> None:
    """Adding zeros of a larger size repeats what has size 1."""
    sizes: Shape = ["N", 3, "H", "W"]
    before = graph([node("Add", "x z", "a"), node("Relu", "a", "y")], {"z": np.zeros((1, 3, 6, 6))}, shape=sizes)
    after = graph([node("Relu", "x", "y")], shape=sizes)
    assert proved(before, before).proved
    assert not proved(before, after).proved


def test_places_of_the_largest_in_a_constant_channel() -> None:
    """Where a maximum stands is told of a constant channel as well, whose counterpart may vary."""
    pool = node("MaxPool", "b", "m i", kernel_shape=[2, 2])
    cast, add = node("Cast", "i", "f", to=TensorProto.FLOAT), node("Add", "z f", "y")
    rest = [cast, node("Conv", "m v", "z"), add]
    gone = POINT.copy()
    gone[:, 0] = 0
    before = graph([node("Conv", "x c k", "b"), pool, *rest], {"c": dead(POINT, 0), "k": BIAS, "v": POINT})
    after = graph(
        [node("Conv", "x c k", "b"), pool, cast, node("Conv", "m v q", "z"), add],
        {"c": POINT, "k": BIAS, "v": gone, "q": POINT[:, 0, 0, 0]},
    )
    assert proved(before, before).proved
    assert not proved(before, after).proved
