"""Numbers that trained models hold: vanishing, negative and pruned gammas, variances of 0, float16 at its end.

Each case is a small ONNX model, folded as users fold, with the reasons for which BatchNorms stay. Where they go, the
folded model is at most four times as far from the float64 meaning of the stored numbers as the original is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from frontends.onnx_case import Case, codes, draw, fold, run
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import bnfold

HALF = np.float16
BRAIN = ml_dtypes.bfloat16
CHANNELS = 4
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def widened(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model on the same stored numbers, computed in float64."""
    wide = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in wide.graph.initializer:
        if tensor.data_type in FLOATS:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for info in (*wide.graph.input, *wide.graph.output):
        if info.type.tensor_type.elem_type in FLOATS:
            info.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    del wide.graph.value_info[:]
    return wide


def meaning(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> np.ndarray:
    wide = {name: value.astype(np.float64) if value.dtype.kind in "fV" else value for name, value in feeds.items()}
    return np.asarray(ReferenceEvaluator(widened(proto)).run(None, wide)[0])


def folded(proto: onnx.ModelProto, *kept: str) -> onnx.ModelProto:
    """The folded model, after a check that exactly the BatchNorms with these reasons stay, and that weights fit."""
    done = fold(proto)
    assert codes(done.plan) == kept, [(s.name, s.status, s.reason) for s in done.plan.sites]
    for tensor in done.after.graph.initializer:
        assert np.isfinite(numpy_helper.to_array(tensor).astype(np.float64)).all(), f"{tensor.name} is not finite"
    return done.after


def check(proto: onnx.ModelProto, *kept: str) -> onnx.ModelProto:
    """As `folded`, and the error against float64 has not grown."""
    after = folded(proto, *kept)
    for seed in range(3):
        feeds = draw(proto, {}, seed, {})
        truth = meaning(proto, feeds)
        before_error, error = (float(np.abs(run(m, feeds, True)[0] - truth).max()) for m in (proto, after))
        assert error <= 4 * before_error + 1e-7 * float(np.abs(truth).max()), (error, before_error)
    return after


def image(dtype: Any = np.float32) -> tuple[Case, str]:
    c = Case(dtype=dtype)
    return c, c.input(2, CHANNELS, 6, 6)


def classic(**norm: Any) -> onnx.ModelProto:
    """Conv → BatchNormalization → ReLU → padded Conv."""
    c, x = image()
    y = c.op("Relu", c.bn(c.conv(x, CHANNELS, CHANNELS, 3, 3), CHANNELS, **norm))
    return c.model(c.conv(y, 3, CHANNELS, 3, 3, pads=[1, 1, 1, 1]))


def stream(*norms: Mapping[str, Any], pad: int = 1, act: str = "Relu") -> onnx.ModelProto:
    """A residual stream read through BatchNormalization → activation → Conv, once per norm (pre-activation)."""
    c, x = image()
    x = c.conv(x, CHANNELS, CHANNELS, 3, 3, pads=[1, 1, 1, 1])
    for norm in norms:
        y = c.op(act, c.bn(x, CHANNELS, **norm))
        y = c.conv(y, CHANNELS, CHANNELS, 3, 3, pads=[pad] * 4)
        if not pad:
            y = c.op("GlobalAveragePool", y)
        x = c.op("Add", x, y)
    return c.model(c.conv(x, 3, CHANNELS, 1, 1))


def forward(**norm: Any) -> onnx.ModelProto:
    """BatchNormalization → Conv on the input: a forward fold."""
    c, x = image()
    return c.model(c.conv(c.bn(x, CHANNELS, **norm), 3, CHANNELS, 3, 3))


POSITIVE = [0.5, 1.0, 1.5, 2.0]
NEGATIVE = [-0.5, 1.0, -1.5, 2.0]
PRUNED = [0.0, 1.0, 0.0, 2.0]
DEAD = [1e-12, 1.0, -1e-12, 2.0]  # 1,000 standard deviations of these do not move a beta of 1 in float32
OFF, ON = [-1.0, 0.5, -2.0, 0.5], [1.0, 0.5, 2.0, 0.5]


# Behind a convolution nothing is inverted, so everything folds


@pytest.mark.parametrize(
    "norm",
    [
        {"gamma": NEGATIVE},
        {"gamma": PRUNED},
        {"gamma": PRUNED, "beta": PRUNED},
        {"gamma": [0.0] * CHANNELS, "beta": [0.0] * CHANNELS},
        {"gamma": DEAD, "beta": ON},
        {"gamma": [1e-30, 1e-8, -1e-3, 1.0], "beta": [1e-30, 1.0, 100.0, 1.0]},
        {"var": [0.0] * CHANNELS},
        {"var": [0.0, 1e-10, 1.0, 1e6], "epsilon": 1e-12},
        {"mean": [1e3, -1e3, 0.0, 1.0]},
        {"gamma": [1e5, 1.0, 1e-5, -1e5]},
    ],
    ids=[
        "negative", "pruned", "pruned with beta", "all pruned", "dead", "tiny", "variance 0", "epsilon 1e-12",
        "large mean", "large gamma",
    ],
)  # fmt: skip
def test_behind_a_convolution_every_batch_norm_folds(norm: dict[str, Any]) -> None:
    check(classic(**norm))


def test_a_pruned_network_keeps_its_zeros() -> None:
    """Filters of exact zeros, their gammas and betas as well, in every layer."""
    c, x = image()
    for _ in range(3):
        weight = c.rng.standard_normal((CHANNELS, CHANNELS, 3, 3))
        weight[[1, 3]] = 0.0
        y = c.op("Conv", x, c.const(weight), pads=[1, 1, 1, 1])
        zero = {"gamma": [1.0, 0.0, 2.0, 0.0], "beta": [0.5, 0.0, 1.0, 0.0], "mean": [0.1, 0.0, 0.2, 0.0]}
        x = c.op("Relu", c.bn(y, CHANNELS, var=[1.0, 0.0, 2.0, 0.0], **zero))
    after = check(c.model(x))
    weights = [numpy_helper.to_array(t) for t in after.graph.initializer if len(t.dims) == 4]
    assert len(weights) == 3
    assert all(not weight[[1, 3]].any() for weight in weights)


# On a stream that others read, scales are inverted


@pytest.mark.parametrize(
    ("norm", "kept"),
    [
        ({"gamma": POSITIVE}, ()),
        ({"gamma": NEGATIVE}, ()),  # one reader: the stream takes the signs
        ({"gamma": PRUNED, "beta": OFF}, ()),
        ({"gamma": PRUNED, "beta": PRUNED}, ()),
        ({"gamma": PRUNED, "beta": ON}, ("ZERO-GAMMA",)),
        ({"gamma": DEAD, "beta": OFF}, ()),
        ({"gamma": DEAD, "beta": ON}, ("ZERO-GAMMA",)),
        ({"gamma": [1e-3, 1.0, 1.0, 1.0], "beta": [1.0, 0.0, 0.0, 0.0]}, ("ILL-CONDITIONED",)),
        ({"gamma": [1e-3, 1.0, 1.0, 1.0], "beta": [1e-3, 0.0, 0.0, 0.0]}, ()),
        ({"var": [0.0] * CHANNELS, "mean": [0.1] * CHANNELS}, ()),
        ({"var": [0.0] * CHANNELS, "mean": [0.1] * CHANNELS, "epsilon": 1e-12}, ("ILL-CONDITIONED",)),
        ({"var": [0.0] * CHANNELS, "mean": [0.0] * CHANNELS, "beta": [0.0] * CHANNELS, "epsilon": 1e-12}, ()),
    ],
    ids=[
        "positive", "negative", "pruned off", "pruned zero", "pruned on", "dead off", "dead on", "tiny, large beta",
        "tiny, small beta", "variance 0", "epsilon 1e-12", "epsilon 1e-12, no shift",
    ],
)  # fmt: skip
def test_on_a_stream(norm: dict[str, Any], kept: tuple[str, ...]) -> None:
    check(stream(norm), *kept)


def test_a_constant_channel_goes_into_the_bias_of_a_convolution_without_padding() -> None:
    """With padding it does not: the border would see zeros where the constant was."""
    for gamma in (PRUNED, DEAD):
        check(stream({"gamma": gamma, "beta": ON}, pad=0))
        check(stream({"gamma": gamma, "beta": ON}, pad=0, act="LeakyRelu"), "ZERO-GAMMA")


def test_readers_with_other_signs_cannot_share_a_stream() -> None:
    check(stream({"gamma": NEGATIVE}, {"gamma": POSITIVE}), "NEGATIVE-GAMMA")
    check(stream({"gamma": NEGATIVE}, {"gamma": NEGATIVE}))


def test_a_dead_channel_does_not_care_about_signs() -> None:
    """Its unit is free, so the reader with a negative gamma there can set it."""
    alive = {"gamma": NEGATIVE}
    check(stream(alive, {"gamma": [0.0, 1.0, 0.0, 2.0], "beta": OFF}))
    check(stream(alive, {"gamma": [1e-12, 1.0, 1e-12, 2.0], "beta": OFF}))


@pytest.mark.parametrize(
    ("norm", "kept"),
    [
        ({"gamma": NEGATIVE}, ()),
        ({"gamma": PRUNED}, ()),
        ({"gamma": [1e-3, 1.0, 1.0, 1.0], "beta": [1.0, 0.0, 0.0, 0.0]}, ("ILL-CONDITIONED",)),
        ({"mean": [1e3, 0.0, 0.0, 0.0], "var": [1.0] * CHANNELS}, ("ILL-CONDITIONED",)),
        ({"var": [0.0] * CHANNELS, "beta": [0.1] * CHANNELS, "mean": [0.0] * CHANNELS, "epsilon": 1e-12}, ()),
    ],
    ids=["negative", "pruned", "tiny gamma", "large mean", "epsilon 1e-12"],
)
def test_into_a_convolution_behind(norm: dict[str, Any], kept: tuple[str, ...]) -> None:
    check(forward(**norm), *kept)


# Numbers that are none


@pytest.mark.parametrize(
    "norm",
    [{"gamma": [np.nan, 1, 1, 1]}, {"var": [-1.0, 1, 1, 1]}, {"var": [np.inf, 1, 1, 1]}, {"mean": [np.inf, 1, 1, 1]}],
    ids=["gamma NaN", "negative variance", "infinite variance", "infinite mean"],
)
def test_statistics_that_are_no_numbers_stay(norm: dict[str, Any]) -> None:
    proto = classic(**norm)
    result = bnfold.fold(proto)
    assert codes(result.plan) == ("OVERFLOW",)
    norms = [node for node in result.model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 1


# Range: float16 ends at 65,504, float32 and bfloat16 at 3.4e38


def half(make: Callable[[Case, str], str], dtype: Any = HALF) -> onnx.ModelProto:
    c, x = image(dtype)
    return c.model(make(c, x))


def norm(c: Case, x: str, gamma: float, beta: float = 0.0, mean: float = 0.0, sigma: float = 1.0) -> str:
    parameters = {"gamma": gamma, "beta": beta, "mean": mean, "var": sigma**2}
    return c.bn(x, CHANNELS, **{key: [value] * CHANNELS for key, value in parameters.items()})


def filled(c: Case, x: str, value: float, **more: Any) -> str:
    """A 1×1 convolution whose weights are all the same."""
    return c.op("Conv", x, c.const(np.full((CHANNELS, CHANNELS, 1, 1), value)), **more)


def ones(c: Case, value: float) -> str:
    return c.const(np.full(CHANNELS, value))


def large_weight(c: Case, x: str) -> str:
    return c.op("Tanh", norm(c, filled(c, x, 1000.0), 100.0))


def large_bias(c: Case, x: str) -> str:
    """The bias itself is finite, and so is t: their sum is not."""
    y = c.op("Conv", x, c.const(np.ones((CHANNELS, CHANNELS, 1, 1))), ones(c, 6e4))
    return c.op("Tanh", norm(c, y, 2.0, -100.0))


def large_shift(c: Case, x: str) -> str:
    """mean/σ = 95,000, from numbers that are far from the end."""
    return c.op("Tanh", norm(c, filled(c, x, 1e-3), 1.0, 0.0, mean=300.0, sigma=1 / 316))


def large_forward(c: Case, x: str) -> str:
    return filled(c, norm(c, x, 100.0), 1000.0)


def large_in_a_matmul(c: Case, x: str) -> str:
    y = c.op("MatMul", c.op("Flatten", x), c.const(np.full((CHANNELS * 36, CHANNELS), 1000.0)))
    return c.op("Tanh", norm(c, c.op("Add", y, ones(c, 1.0)), 100.0))


def large_in_a_table(c: Case, x: str) -> str:
    table = c.op("Gather", c.const(np.full((5, CHANNELS), 1000.0)), c.input(2, name="words", dtype=np.int64))
    return c.op("Tanh", c.op("Add", norm(c, table, 100.0), c.op("Flatten", c.op("GlobalAveragePool", x))))


def large_in_a_recurrence(c: Case, x: str) -> str:
    y = c.op("Transpose", norm(c, c.op("Reshape", x, c.ints(2, CHANNELS, 36)), 100.0), perm=[2, 0, 1])
    weights = [c.const(np.full(shape, 1000.0)) for shape in ((1, 5, CHANNELS), (1, 5, 5))]
    return c.op("RNN", y, *weights, hidden_size=5)


def large_in_a_constant(c: Case, x: str) -> str:
    """A class token beside the features, in the unit of both."""
    token = c.const(np.full((2, CHANNELS, 6, 1), 1000.0))
    y = c.op("Concat", filled(c, x, 1.0), token, axis=3)
    return c.op("Tanh", norm(c, y, 100.0))


def large_in_a_position(c: Case, x: str) -> str:
    """A position embedding, added where the unit is the BatchNorm's result."""
    y = c.op("Add", filled(c, x, 1.0), c.const(1000.0 + np.arange(CHANNELS * 36.0).reshape(1, CHANNELS, 6, 6)))
    return c.op("Tanh", norm(c, y, 100.0))


OVERFLOWING = [
    large_weight, large_bias, large_shift, large_forward, large_in_a_matmul, large_in_a_table, large_in_a_recurrence,
    large_in_a_constant, large_in_a_position,
]  # fmt: skip


@pytest.mark.parametrize("make", OVERFLOWING)
def test_what_does_not_fit_float16_stays(make: Callable[[Case, str], str]) -> None:
    folded(half(make), "OVERFLOW")
    folded(half(make, BRAIN))
    folded(half(make, np.float32))


def test_what_fits_float16_goes() -> None:
    def make(c: Case, x: str) -> str:
        return c.op("Tanh", norm(c, filled(c, x, 1000.0), 60.0))

    folded(half(make))


def test_what_does_not_fit_float32_stays() -> None:
    def make(c: Case, x: str) -> str:
        return c.op("Tanh", norm(c, filled(c, x, 1000.0), 1e36))

    folded(half(make, np.float32), "OVERFLOW")
    folded(half(make, BRAIN), "OVERFLOW")
    folded(half(make, np.float64))


def test_a_batch_norm_that_stays_must_fit_as_well() -> None:
    """Two readers of one convolution: the first would fold, but the second would be rebased by 100 / 1e-3."""

    def make(c: Case, x: str) -> str:
        y = filled(c, x, 1.0)
        return c.op("Concat", c.op("Tanh", norm(c, y, 1e-3)), c.op("Tanh", norm(c, y, 100.0)), axis=1)

    folded(half(make), "OVERFLOW")
    folded(half(make, BRAIN), "SHARED-UNIT")


def test_the_rest_of_a_model_is_folded_all_the_same() -> None:
    def make(c: Case, x: str) -> str:
        for gamma in (100.0, 2.0, 100.0, 1.0):
            x = c.op("Tanh", norm(c, filled(c, x, 1000.0), gamma))
        return x

    folded(half(make), "OVERFLOW", "OVERFLOW")


# A class that nothing ties down is balanced before it is given up


def scales(*factors: float) -> Callable[[Case, str], str]:
    """Convolutions with BatchNorms and ReLUs between them: only the input and the end have a unit of their own."""

    def make(c: Case, x: str) -> str:
        x = filled(c, x, 0.05)
        for factor in factors:
            x = norm(c, x, factor)
        return filled(c, c.op("Relu", x), 0.05)

    return make


def test_a_free_class_leaves_most_weights_alone() -> None:
    c, x = image()
    y = c.op("Relu", norm(c, c.conv(x, CHANNELS, CHANNELS, 1, 1), 3.0))
    before = c.model(c.conv(y, 8, CHANNELS, 5, 5))
    after = check(before)
    old, new = ({t.name: t.raw_data for t in m.graph.initializer if len(t.dims) == 4} for m in (before, after))
    assert [name for name in old if old[name] != new[name]] == [before.graph.node[0].input[1]]


@pytest.mark.parametrize("factors", [(3e3, 1e3), (1e-3, 1e-2), (1e3, 1e3, 1e3, 1e-2)])
def test_a_float16_class_is_balanced(factors: Sequence[float]) -> None:
    """The product of the scales is far from 1: half of it goes into each side."""
    proto = half(scales(*factors))
    after = folded(proto)
    for tensor in after.graph.initializer:
        if len(tensor.dims) == 4:
            assert np.abs(numpy_helper.to_array(tensor).astype(np.float64)).min() > 1e-4
    feeds = draw(proto, {}, 0, {})
    truth, error = meaning(proto, feeds), meaning(after, feeds)
    assert np.abs(truth - error).max() <= 2e-3 * np.abs(truth).max()


def test_what_does_not_fit_when_balanced_stays() -> None:
    assert codes(fold(half(scales(6e4, 6e4, 6e4, 6e4))).plan)[:1] == ("OVERFLOW",)
