"""Folds that a too strict certificate refused, each by what was special about it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from pairs import folded, graph, node, per_channel, proved

from bnfold.certificate import certify

RNG = np.random.default_rng(3)
FULL = RNG.normal(size=(3, 3, 3, 3))
POINT = RNG.normal(size=(3, 3, 1, 1))
DEPTHWISE = RNG.normal(size=(3, 1, 1, 1))
PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
SAME = {"pads": [1, 1, 1, 1]}


def norm(name: str, gamma: list[float] | None = None) -> dict[str, np.ndarray]:
    """The parameters of a BatchNorm, in order."""
    return {
        f"{name}g": RNG.uniform(0.5, 1.5, 3) if gamma is None else np.array(gamma),
        f"{name}b": RNG.normal(size=3),
        f"{name}m": RNG.normal(size=3),
        f"{name}v": RNG.uniform(0.5, 1.5, 3),
    }


def bn(read: str, name: str) -> onnx.NodeProto:
    return node("BatchNormalization", " ".join([read, *(name + part for part in "gbmv")]), name)


def fold_is_proved(before: onnx.ModelProto, left: int) -> None:
    after = folded(before)
    assert sum(n.op_type == "BatchNormalization" for n in after.graph.node) == left
    certificate = proved(before, after)
    assert certificate.proved, certificate.problems


def test_a_pad_that_one_reader_takes_in_and_another_does_not() -> None:
    before = graph(
        [
            node("Relu", "x", "r"),
            node("Pad", "r pads", "p"),
            node("Conv", "p w", "c", strides=[2, 2]),
            node("ConvTranspose", "p w", "t"),
            bn("t", "n"),
            node("ReduceMean", "n axes", "s"),
            node("Add", "c s", "y"),
        ],
        {"w": FULL, "pads": PADS, "axes": np.array([2, 3]), **norm("n")},
    )
    after = folded(before)
    assert [n.op_type for n in after.graph.node].count("Pad") == 1
    assert next(n for n in after.graph.node if n.name == "c").input[0] == "r"
    assert proved(before, after).proved


def test_an_affine_behind_padding_that_a_convolution_takes_in() -> None:
    fold_is_proved(
        graph(
            [node("Pad", "x pads", "p"), bn("p", "n"), node("Conv", "n w", "y")],
            {"w": POINT, "pads": PADS, **norm("n")},
        ),
        0,
    )


def test_merged_branches_that_a_linear_operator_reads() -> None:
    """They were rounded twice, which shows where what they make is looked for, not where numbers are compared."""
    before = graph(
        [
            node("Conv", "x w", "a", **SAME),
            bn("a", "m"),
            node("Conv", "x v", "b"),
            bn("b", "n"),
            node("Add", "m n", "s"),
            bn("s", "o"),
            node("Conv", "o u", "c"),
            node("Add", "c o", "y"),
        ],
        {"w": FULL, "v": POINT, "u": POINT[::-1].copy(), **norm("m"), **norm("n"), **norm("o")},
    )
    fold_is_proved(before, 0)


@pytest.mark.parametrize("gamma", [[0.0, 1.0, 0.7], [0.0, 0.0, 0.0]])
def test_merged_branches_that_read_constant_channels(gamma: list[float]) -> None:
    """One branch pads a constant channel with zeros and the other does not, so that it is one of their sum only."""
    before = graph(
        [
            node("Conv", "x w", "c"),
            bn("c", "k"),
            node("Conv", "k v", "a", **SAME),
            bn("a", "m"),
            bn("k", "n"),
            node("Sub", "m n", "s"),
            node("PRelu", "s slope", "y"),
        ],
        {
            "w": POINT,
            "v": FULL,
            "slope": per_channel(np.array([0.3, 0.2, 0.1])),
            **norm("k", gamma),
            **norm("m"),
            **norm("n"),
        },
    )
    fold_is_proved(before, 0)


def test_a_depthwise_operator_of_one_tap_is_a_scale() -> None:
    """It is not written in whatever else happens to be proportional to it."""
    before = graph(
        [
            bn("x", "i"),
            bn("x", "j"),
            node("Add", "i j", "t"),
            node("Conv", "j d", "a", group=3),
            node("Conv", "j w", "b", **SAME),
            node("Add", "a b", "s"),
            bn("s", "n"),
            node("Conv", "n v", "z"),
            node("Sigmoid", "t", "u"),
            node("Sub", "u z", "y"),
        ],
        {"d": DEPTHWISE, "w": FULL, "v": POINT, **norm("i"), **norm("j"), **norm("n")},
    )
    assert proved(before, folded(before)).proved


def test_a_matrix_product_along_the_last_axis_of_a_constant() -> None:
    before = graph(
        [
            bn("x", "k"),
            node("MatMul", "k w", "m"),
            node("Add", "m k", "s"),
            node("Conv", "s v", "y"),
        ],
        {"w": RNG.normal(size=(6, 6)), "v": POINT, **norm("k", [0.0, 0.0, 0.0])},
    )
    assert proved(before, folded(before)).proved


def test_the_difference_of_a_tensor_with_itself_is_nothing_in_any_unit() -> None:
    before = graph(
        [
            node("Conv", "x w", "c"),
            bn("c", "n"),
            node("Sub", "n n", "d"),
            node("Sigmoid", "x", "g"),
            node("Mul", "d g", "m"),
            node("Conv", "m v", "y"),
        ],
        {"w": POINT, "v": FULL, **norm("n")},
    )
    other = {"w": POINT, "v": FULL * 2, **norm("n")}
    nodes = list(before.graph.node)
    assert proved(before, folded(before)).proved
    assert proved(before, graph(nodes, other)).proved


def test_every_level_is_tried() -> None:
    """A model that agrees within 32 units in the last place is not given up at 4."""
    weight = RNG.normal(size=(3, 3, 1, 1)).astype(np.float32)
    before = graph([node("Conv", "x w", "c"), node("Conv", "c v", "y")], {"w": weight, "v": FULL})
    off = weight.astype(np.float64) * (1 + RNG.uniform(-12, 12, weight.shape) * 2.0**-23)
    after = graph([node("Conv", "x w", "c"), node("Conv", "c v", "y")], {"w": off, "v": FULL})
    import onnx_ir as ir

    one, two = ir.from_proto(before), ir.from_proto(after)
    assert not certify(one, two).proved
    assert certify(one, two, (0.5, 4.0, 32.0)).ulps == 32.0


@pytest.mark.parametrize("rest", [[], [("Sigmoid", "n", "y")], [("Relu", "n", "r"), ("Conv", "r v", "y")]], ids=str)
def test_a_gamma_that_rounds_away_leaves_its_beta(rest: list[tuple[str, str, str]]) -> None:
    """The fold writes zeros for such a channel, whatever reads it: an output, too."""
    before = graph(
        [node("Conv", "x w", "c"), bn("c", "n"), *(node(*each) for each in rest)],
        {"w": FULL, "v": POINT, **norm("n", [1e-30, 1.0, -1.0 if not rest else 1.0])},
    )
    fold_is_proved(before, 0)
