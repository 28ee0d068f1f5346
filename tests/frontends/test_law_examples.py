"""Each kind of operator with an example that its law folds and one that it protects, and both shown able to fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from law_case import (
    Build,
    Example,
    backward,
    folded_as_it_comes,
    folds,
    forgetting,
    forward,
    image,
    making,
    model,
    passing,
    pinning,
    protects,
    rigid,
    scaling,
    taking,
)
from onnx_case import Case, check, same_function

from bnfold.units import graph as g
from bnfold.units import laws as module


def two_inputs_to_one_maximum(c: Case) -> str:
    x = image(c)
    return c.conv(c.op("Max", c.bn(x, 4), x), 3, 4, 1, 1)


def batch_norm_of_a_sum_with_the_input(c: Case) -> str:
    x = image(c)
    return c.bn(c.op("Add", c.conv(c.op("Relu", x), 4, 4, 1, 1), x), 4)


def shift_of_one_operand(c: Case) -> str:
    """The sum's shift would have to vanish where only a ReLU follows."""
    x = image(c)
    shifted = c.bn(x, 4, gamma=np.ones(4), var=np.ones(4), epsilon=0.0)
    return c.conv(c.op("Relu", c.op("Add", shifted, x)), 3, 4, 1, 1)


def gated(shift: bool) -> Build:
    def build(c: Case) -> str:
        x = image(c)
        gate = c.op("Sigmoid", c.op("GlobalAveragePool", x))
        feature = c.bn(x, 4) if shift else scaling(c, x)
        return c.conv(c.op("Mul", feature, gate), 3, 4, 1, 1)

    return build


def attention(normalised: bool) -> Build:
    """Positions of a BatchNorm's result are mixed by a computed matrix: `A·V` with V of shape [N, 6, 4]."""

    def build(c: Case) -> str:
        x = c.input("N", 4, 6)
        scores = c.op("MatMul", c.op("Transpose", x, perm=[0, 2, 1]), x)
        matrix = c.op("Softmax", scores, axis=-1) if normalised else c.op("Tanh", scores)
        value = c.op("Transpose", c.bn(x, 4), perm=[0, 2, 1])
        return c.op("MatMul", c.op("MatMul", matrix, value), c.draw(4, 3))

    return build


def embedding(c: Case, channels: int = 5) -> str:
    return c.op("Gather", c.draw(7, channels), c.input("N", 5, name="ids", dtype=np.int64))


def over_embedding(c: Case) -> str:
    return c.bn(c.op("Transpose", embedding(c), perm=[0, 2, 1]), 5)


def over_positions_of_an_embedding(c: Case) -> str:
    return c.bn(embedding(c), 5)


def over_position_embedding(c: Case) -> str:
    x = c.conv(c.input("N", 4, 1, 1), 4, 4, 1, 1)
    return c.bn(c.op("Add", x, c.draw(1, 4, 6, 6)), 4)


def lstm(c: Case, x: str, size: int) -> str:
    """A recurrent layer of hidden size 2 over `[T, N, size]`."""
    y, _, _ = c.op("LSTM", x, c.draw(1, 8, size), c.draw(1, 8, 2), outputs=3, hidden_size=2)
    return y


def before_lstm(c: Case) -> str:
    x = c.bn(c.input("N", 4, 6), 4)
    return lstm(c, c.op("Transpose", x, perm=[2, 0, 1]), 4)


def after_lstm(c: Case) -> str:
    y = c.op("Squeeze", lstm(c, c.input(6, "N", 4), 4), c.ints(1))
    return c.bn(c.op("Transpose", y, perm=[1, 2, 0]), 2)


def halves(c: Case, x: str) -> str:
    first, second = c.op("Split", x, c.ints(2, 2), outputs=2, axis=1)
    return c.op("Concat", first, second, axis=1)


def expanded(c: Case) -> str:
    """One channel, copied to four that are normalised differently."""
    return c.bn(c.op("Expand", c.conv(image(c), 1, 4, 1, 1), c.ints(1, 4, 1, 1)), 4)


def handed_out(c: Case) -> str:
    """The only example that ends in a BatchNorm: its result is the graph's output."""
    return c.bn(c.conv(image(c), 4, 4, 1, 1), 4)


PADDED: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
PAD = [0, 0, 1, 1, 0, 0, 1, 1]


EXAMPLES = {
    "a Linear takes up scale and shift": Example(
        g.Linear,
        pinning,
        lambda c: c.conv(c.bn(image(c), 4), 3, 4, 3, 3),
        forgetting("pinned"),
        lambda c: c.conv(c.bn(image(c), 4), 3, 4, 3, 3, pads=[1, 1, 1, 1]),
    ),
    "an Affine vanishes into the units on its sides": Example(
        g.Affine,
        rigid,
        backward(lambda c, x: x),
        taking(shift=lambda op: np.zeros_like(op.shift)),
        backward(lambda c, x: x),
    ),
    "a table is rewritten": Example(
        g.Table, rigid, over_embedding, taking(y_axis=lambda op: 1), over_positions_of_an_embedding
    ),
    "a constant that varies by position takes up a shift": Example(
        g.Offset, rigid, over_position_embedding, forgetting("ties"), over_position_embedding
    ),
    "a recurrent layer takes up its input's unit, and hands none on": Example(
        g.Recurrent, rigid, before_lstm, making(3), after_lstm
    ),
    "a ReLU lets a positive scale pass": Example(
        g.Homogeneous,
        rigid,
        forward("Relu", shift=False),
        forgetting("positive"),
        forward("Relu", shift=False, negative=True),
    ),
    "a ReLU lets no shift pass": Example(
        g.Homogeneous, None, None, forgetting("pinned"), forward("LeakyRelu", alpha=0.1)
    ),
    "a maximum lets a positive scale and a shift pass": Example(
        g.Select, rigid, forward("Max", 0.5), forgetting("positive"), forward("Max", 0.5, negative=True)
    ),
    "operands of a maximum have one unit": Example(
        g.Select, None, None, forgetting("ties", "rows"), two_inputs_to_one_maximum
    ),
    "an average lets everything pass, unless it counts zeros": Example(
        g.Spatial,
        pinning,
        forward("AveragePool", **PADDED),
        forgetting("pinned"),
        forward("AveragePool", count_include_pad=1, **PADDED),
    ),
    "a maximum over space lets a shift pass, and no negative scale": Example(
        g.Spatial,
        pinning,
        forward("MaxPool", **PADDED),
        forgetting("positive"),
        forward("MaxPool", negative=True, **PADDED),
    ),
    "a sum has the scale of its operands": Example(
        g.Add,
        rigid,
        lambda c: c.bn(c.op("Add", c.conv(x := image(c), 4, 4, 1, 1), c.conv(c.op("Relu", x), 4, 4, 1, 1)), 4),
        forgetting("ties"),
        batch_norm_of_a_sum_with_the_input,
    ),
    "a sum's shift is that of its operands": Example(g.Add, None, None, forgetting("rows"), shift_of_one_operand),
    "a gate lets a scale pass": Example(g.Gate, rigid, gated(shift=False), forgetting("pinned"), gated(shift=True)),
    "mixing by weights that sum to 1 lets a shift pass": Example(
        g.Mix,
        taking(unit_sum=lambda op: False),
        attention(normalised=True),
        taking(unit_sum=lambda op: True),
        attention(normalised=False),
    ),
    "Reshape carries channels": Example(
        g.Reshape,
        rigid,
        backward(lambda c, x: c.op("Reshape", x, c.ints(0, 4, 36))),
        passing,
        backward(lambda c, x: c.op("Reshape", x, c.ints(-1, 4, 3, 6))),
    ),
    "Transpose carries channels": Example(
        g.Transpose,
        rigid,
        lambda c: c.op("MatMul", c.op("Transpose", c.bn(image(c), 4), perm=[0, 2, 3, 1]), c.draw(4, 3)),
        passing,
        lambda c: c.bn(c.op("Transpose", c.conv(c.input("N", 4, 4, 6), 4, 4, 1, 1), perm=[0, 2, 1, 3]), 4),
    ),
    "Expand copies units": Example(
        g.Expand,
        rigid,
        lambda c: c.bn(c.op("Expand", c.conv(c.input("N", 4, 1, 1), 4, 4, 1, 1), c.ints(1, 4, 6, 6)), 4),
        making(1),
        expanded,
    ),
    "Concat puts channels side by side": Example(
        g.Concat, rigid, backward(halves), taking(xs=lambda op: op.xs[::-1]), backward(halves)
    ),
    "Split takes channels apart": Example(
        g.Take, rigid, backward(halves), taking(index=lambda op: np.roll(op.index, 1)), backward(halves)
    ),
    "a padding of zeros lets a scale pass": Example(
        g.ZeroPad,
        rigid,
        lambda c: c.conv(c.op("Pad", scaling(c, image(c)), c.ints(*PAD)), 3, 4, 1, 1),
        forgetting("pinned"),
        lambda c: c.conv(c.op("Pad", c.bn(image(c), 4), c.ints(*PAD)), 3, 4, 1, 1),
    ),
    "everything else lets nothing pass": Example(g.Rigid, None, None, passing, forward("HardSwish")),
}


WEAK = [name for name, example in EXAMPLES.items() if example.weak is not None]


@pytest.mark.parametrize("name", WEAK)
def test_a_law_folds_what_a_weaker_one_would_keep(name: str) -> None:
    folds(EXAMPLES[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_law_protects_what_a_more_generous_one_would_break(name: str) -> None:
    protects(EXAMPLES[name])


def test_the_outputs_of_a_graph_keep_their_units() -> None:
    """Not a law of an operator: what leaves the graph is held where the laws are read."""
    proto = model(handed_out, lambda c, y: y)
    check(proto)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.System, "hold", lambda self, cells, reason: None)
        broken = folded_as_it_comes(proto)
    with pytest.raises(AssertionError):
        same_function(broken)


def test_every_kind_of_operator_has_an_example() -> None:
    kinds = {value for value in vars(g).values() if isinstance(value, type) and issubclass(value, g.Op)} - {g.Op}
    assert kinds == {example.kind for example in EXAMPLES.values()}
