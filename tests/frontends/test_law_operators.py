"""Native operators whose laws differ in what passes: each with what it folds, what it protects, and wrong laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from law_case import (
    Build,
    Example,
    Op,
    backward,
    folds,
    forgetting,
    forward,
    image,
    making,
    passing,
    pinning,
    protects,
    releasing,
    rigid,
    scaling,
    taking,
)
from onnx_case import Case

from bnfold.units import graph as g

EDGE = [0, 0, 1, 1, 0, 0, 1, 1]
PADDED: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
HALF: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}


def then(op: Op, *, shift: bool = True, **given: Any) -> Build:
    """BatchNorm of the input → operator → Conv without padding, which can take up any unit."""

    def build(c: Case) -> str:
        x = c.bn(image(c), 4, **given) if shift else scaling(c, image(c), **given)
        return c.conv(op(c, x), 3, 4, 1, 1)

    return build


def transposed(size: int, *, equal: bool, **attributes: Any) -> Build:
    """BatchNorm → ConvTranspose, whose taps are all equal or not."""

    def build(c: Case) -> str:
        taps = (1, 1) if equal else (size, size)
        weight = c.rng.standard_normal((4, 3, *taps)) * np.ones((size, size))
        return c.op("ConvTranspose", c.bn(image(c), 4), c.const(weight), **attributes)

    return build


def centre_only(c: Case) -> str:
    """Around the tap in the middle there is nothing for the padding to be missing from."""
    weight = np.zeros((3, 4, 3, 3))
    weight[:, :, 1, 1] = c.rng.standard_normal((3, 4))
    return c.op("Conv", c.bn(image(c), 4), c.const(weight), pads=[1, 1, 1, 1])


def mixed_positions(shift: bool) -> Build:
    """A matrix along positions: token mixing."""

    def build(c: Case) -> str:
        x = c.input("N", 4, 6)
        return c.conv(c.op("MatMul", c.bn(x, 4) if shift else scaling(c, x), c.draw(6, 5)), 3, 4, 1)

    return build


def channel_attention(c: Case, x: str) -> str:
    """A convolution along the channels, as ECA has: to it they are positions."""
    row = c.op("Reshape", c.op("GlobalAveragePool", x), c.ints(0, 1, 4))
    return c.conv(row, 1, 1, 3)


def even(c: Case) -> str:
    """A BatchNorm that does the same to every channel."""
    one = dict.fromkeys(("gamma", "var"), np.full(4, 1.7)) | dict.fromkeys(("beta", "mean"), np.full(4, 0.4))
    return c.bn(image(c), 4, **one)


def selected(op_type: str, *, other: bool) -> Op:
    """An element of the feature or of a constant, or of another feature."""

    def build(c: Case, x: str) -> str:
        second = image_again(c) if other else c.const(np.asarray(0.3))
        if op_type != "Where":
            return c.op(op_type, x, second)
        return c.op("Where", c.op("Greater", image_again(c), c.const(np.asarray(0.0))), x, second)

    return build


def image_again(c: Case) -> str:
    """Another input of the same shape."""
    return c.input("N", 4, 6, 6, name=c.name("x"))


def attention(axis: int) -> Build:
    """Positions of a BatchNorm's result are mixed by a softmax, whose rows or columns sum to 1."""

    def build(c: Case) -> str:
        x = c.input("N", 4, 6)
        scores = c.op("MatMul", c.op("Transpose", x, perm=[0, 2, 1]), x)
        value = c.op("Transpose", c.bn(x, 4), perm=[0, 2, 1])
        return c.op("MatMul", c.op("MatMul", c.op("Softmax", scores, axis=axis), value), c.draw(4, 3))

    return build


def divided(c: Case) -> str:
    gate = c.op("Sigmoid", c.op("GlobalAveragePool", image_again(c)))
    return c.conv(c.op("Div", gate, scaling(c, image(c))), 3, 4, 1, 1)


def difference(c: Case) -> str:
    """The second operand's shift goes with the other sign, and where a ReLU follows none may be left."""
    x = image(c)
    first = c.bn(x, 4, gamma=np.ones(4), var=np.ones(4), epsilon=0.0)
    other = c.op("Mul", c.op("Relu", x), c.const(np.asarray(1.0)))
    second = c.bn(other, 4, gamma=np.ones(4), var=np.ones(4), epsilon=0.0)
    return c.conv(c.op("Sub", first, second), 3, 4, 1, 1)


def shuffled(c: Case, x: str) -> str:
    y = c.op("Transpose", c.op("Reshape", x, c.ints(0, 2, 2, 6, 6)), perm=[0, 2, 1, 3, 4])
    return c.op("Reshape", y, c.ints(0, 4, 6, 6))


def to_space(c: Case, x: str) -> str:
    return c.op("DepthToSpace", x, blocksize=2)


def to_depth(c: Case) -> str:
    return c.conv(c.op("SpaceToDepth", c.bn(c.input("N", 2, 6, 6), 2), blocksize=2), 3, 8, 1, 1)


def class_token(c: Case) -> str:
    """Tokens with a constant one in front, normalised together."""
    tokens = c.conv(c.input(1, 4, 6), 4, 4, 1)
    return c.bn(c.op("Concat", c.draw(1, 4, 1), tokens, axis=2), 4)


def some_places(c: Case, x: str) -> str:
    """Places of an image whose channels come last, as advanced indexing is exported."""
    places = c.const(np.array([[[0, 1], [5, 2]], [[3, 3], [4, 0]], [[0, 0], [2, 5]]]))
    picked = c.op("GatherND", c.op("Transpose", x, perm=[2, 3, 0, 1]), places)
    return c.op("Transpose", picked, perm=[2, 3, 0, 1])


def some_channels(c: Case) -> str:
    """Channels are chosen together with places, so that all of them are in one unit."""
    places = c.const(np.array([[[0, 1], [3, 2], [2, 5]], [[1, 1], [0, 0], [2, 3]]]))
    return c.op("Mul", c.op("GatherND", c.bn(c.input(2, 4, 6), 4), places, batch_dims=1), c.const(np.asarray(1.5)))


def constant_channels(c: Case) -> str:
    """Coordinates beside the features, as CoordConv has."""
    features = c.conv(c.input(1, 4, 6, 6), 4, 4, 1, 1)
    return c.bn(c.op("Concat", features, c.draw(1, 2, 6, 6), axis=1), 6)


def sampled(padding_mode: str, *, shift: bool) -> Build:
    """Places from beyond the image to its middle."""
    return then(
        lambda c, x: c.op(
            "GridSample", x, c.op("Mul", c.input("N", 5, 5, 2, name="grid"), c.const(np.asarray(1.5))),
            mode="nearest", padding_mode=padding_mode,
        ),
        shift=shift,
    )  # fmt: skip


def regions(*, shift: bool) -> Build:
    """Two regions, one of which reaches beyond the image."""

    def pool(c: Case, x: str) -> str:
        rois = c.const(np.array([[0.0, 0.0, 4.0, 4.0], [3.0, 3.0, 12.0, 12.0]]))
        return c.op("RoiAlign", x, rois, c.ints(0, 0), output_height=2, output_width=2, mode="avg")

    return then(pool, shift=shift)


def recurrent(op_type: str, gates: int, *, directions: int = 1) -> Build:
    """BatchNorm → recurrent layer of hidden size 2."""

    def build(c: Case) -> str:
        x = c.op("Transpose", c.bn(c.input("N", 4, 6), 4), perm=[2, 0, 1])
        given: dict[str, Any] = {"hidden_size": 2, "direction": "bidirectional" if directions == 2 else "forward"}
        operands = [c.draw(directions, 2 * gates, 4), c.draw(directions, 2 * gates, 2)]
        y, *_ = c.op(op_type, x, *operands, outputs=3 if op_type == "LSTM" else 2, **given)
        return y

    return build


def after_recurrent(op_type: str, gates: int) -> Build:
    """Recurrent layer → BatchNorm, which nothing can take up: the state keeps its unit."""

    def build(c: Case) -> str:
        operands = [c.draw(1, 2 * gates, 4), c.draw(1, 2 * gates, 2)]
        y, *_ = c.op(op_type, c.input(6, "N", 4), *operands, outputs=3 if op_type == "LSTM" else 2, hidden_size=2)
        return c.bn(c.op("Transpose", c.op("Squeeze", y, c.ints(1)), perm=[1, 2, 0]), 2)

    return build


def initial_state(c: Case) -> str:
    """A BatchNorm's result is the state that a GRU begins with."""
    state = c.op("Unsqueeze", c.bn(c.input("N", 2, name="h"), 2), c.ints(0))
    x = c.input(6, "N", 4)
    y, _ = c.op("GRU", x, c.draw(1, 6, 4), c.draw(1, 6, 2), "", "", state, outputs=2, hidden_size=2)
    return y


def computed_slope(c: Case) -> str:
    slope = c.bn(c.op("GlobalAveragePool", image_again(c)), 4)
    return c.conv(c.op("PRelu", image(c), slope), 3, 4, 1, 1)


def whole(*operands: Any, **attributes: Any) -> Op:
    """An operator with constant operands behind the feature."""
    op_type, *rest = operands
    return lambda c, x: c.op(op_type, x, *[c.const(np.asarray(value)) for value in rest], **attributes)


def resized(mode: str, height: float = 1.5) -> Op:
    return lambda c, x: c.op("Resize", x, "", c.const(np.array([1, 1, height, 2]), dtype=np.float32), mode=mode)


def beyond(c: Case, x: str) -> str:
    """A region that reaches beyond the image, where 0 stands."""
    roi = c.const(np.array([0, 0, -0.5, 0, 1, 1, 1, 1.5]), dtype=np.float32)
    settings = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    return c.op("Resize", x, roi, c.const(np.array([1, 1, 1.5, 2]), dtype=np.float32), **settings)


def signed(op: Op) -> Build:
    """The same behind a scale with both signs."""
    return lambda c: then(op, shift=False, gamma=c.mixed(4))(c)


def tile_of_channels(c: Case) -> str:
    """Channels that are copied side by side."""
    return c.conv(c.op("Tile", c.bn(c.input("N", 2, 6, 6), 2), c.ints(1, 2, 1, 1)), 3, 4, 1, 1)


AVERAGES: dict[str, Op] = {
    "an AveragePool that leaves its padding out": whole("AveragePool", **PADDED),
    "an AveragePool whose last window is cut off": whole(
        "AveragePool", kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1
    ),
    "GlobalAveragePool": whole("GlobalAveragePool"),
    "ReduceMean over space": whole("ReduceMean", [2, 3]),
    "GlobalMaxPool": whole("GlobalMaxPool"),
    "ReduceMax over space": whole("ReduceMax", [2, 3]),
    "ReduceMin over space": whole("ReduceMin", [2, 3]),
    "Resize nearest": resized("nearest"),
    "Resize linear": resized("linear"),
    "Resize cubic": resized("cubic", height=2.0),
    "Pad reflect": whole("Pad", EDGE, mode="reflect"),
    "Pad edge": whole("Pad", EDGE, mode="edge"),
    "Tile along space": whole("Tile", [1, 1, 2, 3]),
}


EXAMPLES: dict[str, Example] = {
    "ConvTranspose: a shift passes where each position gets as much": Example(
        g.Linear,
        pinning,
        transposed(2, equal=True, strides=[2, 2]),
        forgetting("pinned"),
        transposed(2, equal=False, strides=[2, 2]),
    ),
    "ConvTranspose: what output_padding adds gets less": Example(
        g.Linear,
        pinning,
        transposed(2, equal=True, strides=[2, 2]),
        forgetting("pinned"),
        transposed(2, equal=True, strides=[2, 2], output_padding=[1, 1]),
    ),
    "a padded convolution that looks at the middle only": Example(
        g.Linear,
        pinning,
        centre_only,
        forgetting("pinned"),
        lambda c: c.conv(c.bn(image(c), 4), 3, 4, 2, 2, pads=[2] * 4, dilations=[2, 2]),
    ),
    "token mixing lets a scale pass": Example(
        g.Linear, rigid, mixed_positions(shift=False), forgetting("pinned"), mixed_positions(shift=True)
    ),
    "a convolution along the channels ties them": Example(
        g.Linear,
        rigid,
        lambda c: channel_attention(c, even(c)),
        forgetting("ties", "rows"),
        lambda c: channel_attention(c, c.bn(image(c), 4)),
    ),
    "Sub: the shift of what is taken away": Example(g.Add, rigid, difference, taking(sign=lambda op: 1.0), difference),
    "Div: what divides is the gate": Example(
        g.Gate,
        rigid,
        lambda c: c.conv(c.op("Div", scaling(c, image(c)), c.op("Exp", image_again(c))), 3, 4, 1, 1),
        taking(a=lambda op: op.b, b=lambda op: op.a),
        divided,
    ),
    "Max of two features": Example(
        g.Select,
        rigid,
        then(selected("Max", other=False)),
        forgetting("ties", "rows"),
        then(selected("Max", other=True)),
    ),
    "Min of two features": Example(
        g.Select,
        rigid,
        then(selected("Min", other=False)),
        forgetting("ties", "rows"),
        then(selected("Min", other=True)),
    ),
    "Min: the order needs a positive scale": Example(
        g.Select,
        rigid,
        then(selected("Min", other=False)),
        forgetting("positive"),
        lambda c: then(selected("Min", other=False), gamma=c.mixed(4))(c),
    ),
    "Where: any sign passes, and both sides have one unit": Example(
        g.Select,
        taking(positive=lambda op: True),
        lambda c: then(selected("Where", other=False), gamma=c.mixed(4))(c),
        forgetting("ties", "rows"),
        then(selected("Where", other=True)),
    ),
    "a constant operand is rewritten": Example(
        g.Select, rigid, then(selected("Where", other=False)), forgetting("views"), then(selected("Max", other=False))
    ),
    "GridSample: a shift passes where nothing comes from outside": Example(
        g.Spatial,
        pinning,
        sampled("border", shift=True),
        forgetting("pinned"),
        sampled("zeros", shift=True),
    ),
    "RoiAlign lets a scale pass": Example(
        g.Spatial, rigid, regions(shift=False), forgetting("pinned"), regions(shift=True)
    ),
    "a softmax over the axis that is summed lets a shift pass": Example(
        g.Mix,
        taking(unit_sum=lambda op: False),
        attention(axis=-1),
        taking(unit_sum=lambda op: True),
        attention(axis=-2),
    ),
    "a sum over space lets a scale pass": Example(
        g.Spatial,
        rigid,
        then(whole("ReduceSum", [2, 3]), shift=False),
        forgetting("pinned"),
        then(whole("ReduceSum", [2, 3])),
    ),
    "CumSum lets a scale pass": Example(
        g.Spatial, rigid, then(whole("CumSum", 3), shift=False), forgetting("pinned"), then(whole("CumSum", 3))
    ),
    "an AveragePool that counts its padding lets a scale pass": Example(
        g.Spatial,
        rigid,
        then(whole("AveragePool", count_include_pad=1, **PADDED), shift=False),
        forgetting("pinned"),
        then(whole("AveragePool", count_include_pad=1, ceil_mode=1, strides=[2, 2], **PADDED)),
    ),
    "Resize beyond the image lets a scale pass": Example(
        g.Spatial, rigid, then(beyond, shift=False), forgetting("pinned"), then(beyond)
    ),
    "a minimum over space needs a positive scale": Example(
        g.Spatial,
        pinning,
        then(whole("ReduceMin", [2, 3])),
        forgetting("positive"),
        lambda c: then(whole("ReduceMin", [2, 3]), gamma=c.mixed(4))(c),
    ),
    "DepthToSpace: neighbours in space have one unit": Example(
        g.Spatial,
        rigid,
        lambda c: c.bn(to_space(c, c.conv(image(c), 4, 4, 1, 1)), 1),
        forgetting("ties", "rows"),
        lambda c: c.conv(to_space(c, c.bn(image(c), 4)), 3, 1, 1, 1),
    ),
    "SpaceToDepth: neighbours in space keep the unit they had": Example(
        g.Transpose, rigid, to_depth, taking(perm=lambda op: (0, 1, 5, 3, 2, 4)), to_depth
    ),
    "a channel shuffle": Example(
        g.Transpose, rigid, backward(shuffled), taking(perm=lambda op: tuple(range(len(op.perm)))), backward(shuffled)
    ),
    "Flatten repeats each channel": Example(
        g.Reshape,
        rigid,
        lambda c: c.op("Gemm", c.op("Flatten", c.bn(c.input("N", 4, 3, 3), 4)), c.draw(36, 3)),
        making(1),
        lambda c: c.op("Flatten", c.bn(c.input("N", 4, 3, 3), 4)),
    ),
    "Gather takes channels out": Example(
        g.Take,
        rigid,
        backward(lambda c, x: c.op("Gather", x, c.ints(2, 0, 1, 3), axis=1)),
        taking(index=lambda op: np.roll(op.index, 1)),
        lambda c: c.conv(c.op("Gather", c.bn(image(c), 4), c.ints(2, 0, 1, 3), axis=1), 3, 4, 1, 1),
    ),
    "GatherND takes places out": Example(
        g.Spatial, rigid, then(some_places), forgetting("ties", "rows"), some_channels
    ),
    "a Slice backwards": Example(
        g.Take,
        rigid,
        backward(lambda c, x: c.op("Slice", x, c.ints(-1), c.ints(-5), c.ints(1), c.ints(-1))),
        taking(index=lambda op: op.index[::-1]),
        backward(lambda c, x: c.op("Slice", x, c.ints(-1), c.ints(-5), c.ints(1), c.ints(-1))),
    ),
    "a constant token is rewritten": Example(g.Concat, rigid, class_token, forgetting("views"), class_token),
    "constant channels are rewritten": Example(
        g.Concat, rigid, constant_channels, forgetting("views"), constant_channels
    ),
    "a LSTM in both directions": Example(
        g.Recurrent, rigid, recurrent("LSTM", 4, directions=2), making(3), after_recurrent("LSTM", 4)
    ),
    "a GRU": Example(g.Recurrent, rigid, recurrent("GRU", 3), making(3), after_recurrent("GRU", 3)),
    "a RNN": Example(g.Recurrent, rigid, recurrent("RNN", 1), making(3), after_recurrent("RNN", 1)),
    "the state that a recurrent layer begins with": Example(g.Rigid, None, None, releasing, initial_state),
    "a computed slope": Example(g.Rigid, None, None, releasing, computed_slope),
    **{
        f"{name} lets a positive scale pass": Example(
            g.Homogeneous, rigid, then(op, shift=False), forgetting("positive"), signed(op)
        )
        for name, op in {
            "LeakyRelu": whole("LeakyRelu", alpha=0.1),
            "PRelu": whole("PRelu", [[[0.3]], [[-0.2]], [[0.1]], [[0.7]]]),
            "Abs": whole("Abs"),
            "Clip from 0": whole("Clip", 0.0),
        }.items()
    },
    **{
        f"{op_type} keeps its unit": Example(g.Rigid, None, None, passing, forward(op_type, *operands, **attributes))
        for op_type, operands, attributes in (
            ("Clip", (0.0, 6.0), {}),
            ("Elu", (), {}),
            ("Erf", (), {}),
            ("Exp", (), {}),
            ("InstanceNormalization", (np.ones(4), np.zeros(4)), {"epsilon": 0.5}),
            ("Mish", (), {}),
            ("Sigmoid", (), {}),
            ("Softmax", (), {"axis": 1}),
            ("Softplus", (), {}),
            ("Tanh", (), {}),
        )
    },
    "Tile along channels ties them": Example(
        g.Spatial, pinning, then(whole("Tile", [1, 1, 2, 3])), forgetting("ties", "rows"), tile_of_channels
    ),
}


WEAK = [name for name, example in EXAMPLES.items() if example.weak is not None]


@pytest.mark.parametrize("name", WEAK)
def test_it_folds_what_a_weaker_law_would_keep(name: str) -> None:
    folds(EXAMPLES[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_protects_what_a_more_generous_law_would_break(name: str) -> None:
    protects(EXAMPLES[name])


@pytest.mark.parametrize("name", AVERAGES)
def test_a_shift_passes_an_average_or_a_maximum(name: str) -> None:
    folds(replace(EXAMPLES["Tile along channels ties them"], folds=then(AVERAGES[name])))
