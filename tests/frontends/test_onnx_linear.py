"""Linear operators: where their units go in, where they come out, and where neither may."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_case import Case, assert_same, check, codes, draw, fold, run

SPATIAL = {1: ("W",), 2: ("H", "W"), 3: ("D", "H", "W")}
SIZES = ({"N": 2, "D": 5, "H": 6, "W": 7}, {"N": 1, "D": 4, "H": 5, "W": 8})


def conv_model(
    where: str, dims: int, group: int = 1, kernel: int = 3, bias: bool = True, fixed: bool = False, **attrs: Any
) -> onnx.ModelProto:
    c = Case()
    spatial = [{"D": 5, "H": 6, "W": 7}[s] for s in SPATIAL[dims]] if fixed else SPATIAL[dims]
    y = c.input("N", 4, *spatial)
    if where in ("before", "both"):
        y = c.bn(y, 4, gamma=c.mixed(4))
    y = c.conv(y, 8, 4 // group, *[kernel] * dims, bias=bias, group=group, **attrs)
    if where in ("after", "both"):
        y = c.bn(y, 8, gamma=c.mixed(8))
    return c.model(y)


NO_PADDING = [
    pytest.param({}, id="plain"),
    pytest.param({"bias": False}, id="no bias"),
    pytest.param({"group": 2}, id="two groups"),
    pytest.param({"group": 4}, id="depthwise with multiplier"),
    pytest.param({"strides": 2}, id="stride"),
    pytest.param({"dilations": 2}, id="dilation"),
    pytest.param({"kernel": 1}, id="pointwise"),
    pytest.param({"auto_pad": "VALID"}, id="auto_pad VALID"),
]


def spread(settings: dict, dims: int) -> dict:
    return {k: [v] * dims if k in ("strides", "dilations") else v for k, v in settings.items()}


@pytest.mark.parametrize("settings", NO_PADDING)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("where", ["before", "after", "both"])
def test_unpadded_conv_absorbs_on_both_sides(where: str, dims: int, settings: dict) -> None:
    folded = check(conv_model(where, dims, **spread(settings, dims)), sizes=SIZES)
    assert folded.ops() == ["Conv"]


PADDING = [
    pytest.param({"pads": "same"}, id="symmetric"),
    pytest.param({"pads": "begin"}, id="asymmetric, front"),
    pytest.param({"pads": "end"}, id="asymmetric, back"),
    pytest.param({"pads": "same", "kernel": 1}, id="padded pointwise"),
    pytest.param({"pads": "same", "group": 4}, id="depthwise"),
]


@pytest.mark.parametrize("settings", PADDING)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_zero_padding_keeps_the_batch_norm_before_it_but_not_the_one_behind(dims: int, settings: dict) -> None:
    pads = {"same": [1] * 2 * dims, "begin": [1] * dims + [0] * dims, "end": [0] * dims + [1] * dims}
    settings = {**settings, "pads": pads[settings["pads"]]}
    check(conv_model("both", dims, **settings), "ZERO-PAD", sizes=SIZES)
    check(conv_model("after", dims, **settings), sizes=SIZES)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("fixed", [True, False])
def test_auto_pad_same_pads(auto_pad: str, fixed: bool) -> None:
    proto = conv_model("both", 2, fixed=fixed, auto_pad=auto_pad, strides=[2, 2])
    check(proto, "ZERO-PAD", sizes=({"N": 2, "H": 6, "W": 8}, {"N": 1, "H": 5, "W": 7}))


def test_auto_pad_same_that_adds_nothing_lets_the_shift_through() -> None:
    c = Case()
    x = c.bn(c.input("N", 3, 6, 6), 3)
    check(c.model(c.conv(x, 4, 3, 2, 2, auto_pad="SAME_UPPER", strides=[2, 2])))


def test_padding_that_no_position_reads_lets_the_shift_through() -> None:
    """Size 5 with one zero behind, kernel 2, stride 2: the windows are 0–1, 2–3, 4–5, of which the last reads a zero;
    with size 6 and one zero behind they are 0–1, 2–3, 4–5 and none does."""
    for size, kept in ((6, ()), (5, ("ZERO-PAD",))):
        c = Case()
        x = c.bn(c.input("N", 3, size), 3)
        check(c.model(c.conv(x, 4, 3, 2, pads=[0, 1], strides=[2])), *kept)


def test_padding_in_front_of_a_window_of_zero_weights_lets_the_shift_through() -> None:
    c = Case()
    x = c.bn(c.input("N", 3, "W"), 3)
    weight = c.rng.standard_normal((4, 3, 3))
    weight[:, :, [0, 2]] = 0
    check(c.model(c.op("Conv", x, c.const(weight), pads=[1, 1])))


def test_without_a_shift_zero_padding_is_no_obstacle() -> None:
    c = Case()
    x = c.bn(c.input("N", 3, "H", "W"), 3, beta=np.zeros(3), mean=np.zeros(3))
    check(c.model(c.conv(x, 4, 3, 3, 3, pads=[1, 1, 1, 1])))


@pytest.mark.parametrize(
    ("group", "settings", "before"),
    [
        pytest.param(1, {"kernel": 1}, True, id="pointwise"),
        pytest.param(2, {"kernel": 1}, True, id="pointwise groups"),
        pytest.param(4, {"kernel": 1}, True, id="pointwise depthwise"),
        pytest.param(1, {"kernel": 3}, False, id="overlapping at the border"),
        pytest.param(
            2, {"kernel": 3, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, False, id="o_p"
        ),
        pytest.param(4, {"kernel": 3, "dilations": [2, 2]}, False, id="dilated depthwise"),
        pytest.param(2, {"kernel": 2, "strides": [2, 2]}, False, id="kernel = stride"),
        pytest.param(1, {"kernel": 3, "strides": [2, 2], "output_shape": [12, 12]}, False, id="output_shape"),
        pytest.param(1, {"kernel": 3, "strides": [2, 2], "auto_pad": "SAME_UPPER"}, False, id="SAME_UPPER"),
        pytest.param(1, {"kernel": 3, "strides": [2, 2], "auto_pad": "SAME_LOWER"}, False, id="SAME_LOWER"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_transpose(group: int, settings: dict, before: bool, bias: bool) -> None:
    c = Case(dtype=np.float32)
    settings = dict(settings)
    kernel = settings.pop("kernel")
    x = c.bn(c.input("N", 4, 6, 6), 4, gamma=c.mixed(4))
    operands = [x, c.draw(4, 8 // group, kernel, kernel)] + ([c.draw(8)] if bias else [])
    y = c.op("ConvTranspose", *operands, group=group, **settings)
    check(c.model(c.bn(y, 8, gamma=c.mixed(8))), *([] if before else ["ZERO-PAD"]), ort=True)


def test_conv_transpose_whose_taps_are_alike_lets_the_shift_through() -> None:
    """Kernel = stride with one weight for all taps: every output position gets the same."""
    c = Case(dtype=np.float32)
    x = c.bn(c.input("N", 4, 6, 6), 4)
    weight = np.broadcast_to(c.rng.standard_normal((4, 3, 1, 1)), (4, 3, 2, 2))
    check(c.model(c.op("ConvTranspose", x, c.const(weight), strides=[2, 2])), ort=True)


def test_conv_1d_over_a_dynamic_length_with_a_long_kernel() -> None:
    """A short-time Fourier transform has thousands of taps, whose combinations cannot all be tried."""
    c = Case(dtype=np.float32)
    proto = c.model(c.bn(c.conv(c.input("N", 1, "T"), 2, 1, 1024, pads=[512, 512], strides=[256]), 2))
    check(proto, ort=True, sizes=({"N": 1, "T": 2048},))


BIASES = [None, (), (1,), (5,), (1, 5), (3, 1), (3, 5)]


@pytest.mark.parametrize("shape", BIASES, ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alpha": 0.5, "beta": 2.0},
        {"transB": 1},
        {"transA": 1},
        {"transA": 1, "transB": 1, "alpha": -2.0},
        {"beta": 0.0},
    ],
    ids=str,
)
def test_gemm_with_every_bias_shape(shape: tuple[int, ...] | None, settings: dict) -> None:
    c = Case()
    x = c.input(*((4, 3) if settings.get("transA") else (3, 4)))
    x = x if settings.get("transA") else c.bn(x, 4, gamma=c.mixed(4))
    operands = [x, c.draw(*((5, 4) if settings.get("transB") else (4, 5)))]
    operands += [] if shape is None else [c.draw(*shape)]
    folded = check(c.model(c.bn(c.op("Gemm", *operands, **settings), 5, gamma=c.mixed(5))))
    assert folded.ops() == ["Gemm"]


def test_gemm_that_transposes_its_feature_takes_a_batch_norm_on_its_rows_in_no_way() -> None:
    """The channels of BatchNorm are the rows of the result then, which no weight of a Gemm runs along."""
    c = Case()
    x = c.bn(c.input(3, 4), 4)
    check(c.model(c.op("Gemm", x, c.draw(3, 5), transA=1)), "SHARED-UNIT")


def test_gemm_by_a_constant_on_the_left_is_kept() -> None:
    c = Case()
    y = c.op("Gemm", c.draw(3, 4), c.input(4, "N"))
    check(c.model(c.op("Sigmoid", c.bn(c.op("Transpose", y), 3))), "NOT-CONSTANT")


@pytest.mark.parametrize("lead", [(), ("T",), ("H", "T")], ids=["2-D", "3-D", "4-D"])
@pytest.mark.parametrize("add", [None, "right", "left"])
def test_matmul_by_a_constant_on_the_right(lead: tuple[str, ...], add: str | None) -> None:
    c = Case()
    y = c.op("MatMul", c.input("N", *lead, 4), c.draw(4, 5))
    if add:
        bias = c.draw(5)
        y = c.op("Add", *((y, bias) if add == "right" else (bias, y)))
    y = c.bn(c.op("Reshape", y, c.ints(-1, 5)), 5, gamma=c.mixed(5))
    folded = check(c.model(y))
    assert folded.ops() == ["MatMul", "Add", "Reshape"]


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5), (1,), ()], ids=str)
def test_matmul_and_the_shapes_of_its_bias(shape: tuple[int, ...]) -> None:
    c = Case()
    y = c.op("Add", c.op("MatMul", c.input("N", "T", 4), c.draw(4, 5)), c.draw(*shape))
    y = c.op("Transpose", c.bn(c.op("Transpose", y, perm=[0, 2, 1]), 5), perm=[0, 2, 1])
    assert check(c.model(y)).plan.folded == 1


@pytest.mark.parametrize("add", [False, True])
def test_matmul_by_a_constant_on_the_left(add: bool) -> None:
    c = Case()
    y = c.op("MatMul", c.draw(5, 4), c.bn(c.input("N", 4, "T"), 4, gamma=c.mixed(4)))
    y = c.op("Add", y, c.draw(5, 1)) if add else y
    folded = check(c.model(c.bn(y, 5, gamma=c.mixed(5))))
    assert folded.ops() == ["MatMul", "Add"]


def test_matmul_whose_result_grows_through_its_bias_keeps_its_add() -> None:
    c = Case()
    y = c.op("Add", c.op("MatMul", c.input("N", 4), c.draw(4, 5)), c.draw(1, 1, 5))
    folded = check(c.model(c.op("Reshape", c.bn(c.op("Reshape", y, c.ints(-1, 5)), 5), c.ints(1, -1, 5))))
    assert folded.ops().count("Add") == 1


def test_bias_that_is_added_twice_is_no_bias() -> None:
    c = Case()
    y = c.op("MatMul", c.input("N", 4), c.draw(4, 5))
    check(c.model(c.bn(c.op("Add", y, y), 5)))


def test_matmul_by_a_stack_of_matrices_is_kept() -> None:
    c = Case()
    y = c.op("MatMul", c.input("N", 3, 2, 4), c.draw(3, 4, 5))
    check(c.model(c.op("Sigmoid", c.bn(c.op("Reshape", y, c.ints(-1, 5)), 5))), "NOT-CONSTANT")


def test_levit_matmul_add_reshape_bn() -> None:
    c = Case()
    x = c.input("N", 6, 4)
    y = c.op("Add", c.draw(8), c.op("MatMul", x, c.draw(4, 8)))
    y = c.op("Reshape", c.bn(c.op("Reshape", y, c.ints(-1, 8)), 8, gamma=c.mixed(8)), c.ints(-1, 6, 8))
    folded = check(c.model(c.op("HardSwish", y)))
    assert folded.ops() == ["MatMul", "Add", "Reshape", "Reshape", "HardSwish"]


def test_token_mixing_matmul_passes_the_scale_of_channels() -> None:
    """`W·X` along the token axis: channels lie on another axis, so BN after it folds into what makes the channels."""
    c = Case()
    y = c.op("MatMul", c.conv(c.input("N", 3, 8), 4, 3, 1), c.draw(8, 6))
    check(c.model(c.bn(y, 4, beta=np.zeros(4), mean=np.zeros(4))))


def attention(softmax: bool, shift: bool, heads: int = 2) -> onnx.ModelProto:
    c = Case()
    x, a = c.input("N", 6, 8), c.input("N", heads, 6, 6, name="a")
    v = c.op("Reshape", c.op("Add", c.op("MatMul", x, c.draw(8, 8)), c.draw(8)), c.ints(0, 6, heads, 8 // heads))
    v = c.op("Transpose", v, perm=[0, 2, 1, 3])
    y = c.op("MatMul", c.op("Softmax", a, axis=-1) if softmax else a, v)
    y = c.op("Reshape", c.op("Transpose", y, perm=[0, 2, 1, 3]), c.ints(-1, 8))
    given = {} if shift else {"beta": np.zeros(8), "mean": np.zeros(8)}
    return c.model(c.op("Sigmoid", c.bn(y, 8, gamma=c.mixed(8), **given)))


@pytest.mark.parametrize(
    ("softmax", "shift", "kept"), [(True, True, ()), (False, False, ()), (False, True, ("NONLINEAR",))]
)
def test_attention_lets_a_scale_through_and_a_shift_if_its_rows_sum_to_one(
    softmax: bool, shift: bool, kept: tuple[str, ...]
) -> None:
    check(attention(softmax, shift), *kept)


def test_softmax_over_another_axis_lets_no_shift_through() -> None:
    c = Case()
    x, a = c.input("N", 6, 8), c.input("N", 6, 6, name="a")
    y = c.op("MatMul", c.op("Softmax", a, axis=1), c.op("MatMul", x, c.draw(8, 8)))
    check(c.model(c.op("Sigmoid", c.bn(c.op("Reshape", y, c.ints(-1, 8)), 8))), "NONLINEAR")


@pytest.mark.parametrize(("opset", "axis", "kept"), [(11, 2, ()), (11, 1, ("NONLINEAR",)), (11, None, ("NONLINEAR",))])
def test_softmax_before_opset_13_flattens_from_its_axis_on(opset: int, axis: int | None, kept: tuple[str, ...]) -> None:
    c = Case(opset=opset, dtype=np.float32)
    x, a = c.input("N", 6, 8), c.input("N", 6, 6, name="a")
    softmax = c.op("Softmax", a, **({} if axis is None else {"axis": axis}))
    y = c.op("MatMul", softmax, c.op("MatMul", x, c.draw(8, 8)))
    check(c.model(c.op("Sigmoid", c.bn(c.op("Reshape", y, c.ints(-1, 8)), 8))), *kept, ort=True)


def test_one_value_head_for_many_queries() -> None:
    """The only head's channels are repeated: BN folds where it treats the copies alike, and stays where it does not."""
    for alike in (True, False):
        c = Case()
        x, a = c.input(1, 4, 4), c.input(1, 2, 4, 4, name="a")
        v = c.op("Transpose", c.op("Reshape", c.op("MatMul", x, c.draw(4, 4)), c.ints(1, 4, 1, 4)), perm=[0, 2, 1, 3])
        y = c.op("MatMul", c.op("Softmax", a, axis=-1), v)
        y = c.op("Reshape", c.op("Transpose", y, perm=[0, 2, 1, 3]), c.ints(4, 8))
        copies = {k: np.tile(1 + np.abs(c.rng.standard_normal(4)), 2) for k in ("gamma", "beta", "mean", "var")}
        y = c.bn(y, 8, **(copies if alike else {"gamma": c.mixed(8)}))
        check(c.model(y), *([] if alike else ["SHARED-UNIT"]))


def test_attention_that_broadcasts_its_values_over_the_batch() -> None:
    c = Case()
    x, a = c.input(1, 4, 8), c.input(3, 2, 4, 4, name="a")
    v = c.op("Transpose", c.op("Reshape", c.op("MatMul", x, c.draw(8, 8)), c.ints(1, 4, 2, 4)), perm=[0, 2, 1, 3])
    y = c.op("Transpose", c.op("MatMul", c.op("Softmax", a, axis=-1), v), perm=[0, 2, 1, 3])
    check(c.model(c.bn(c.op("Reshape", y, c.ints(12, 8)), 8, gamma=c.mixed(8))))


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_input_absorbs_a_batch_norm(kind: str, gates: int, bias: bool, direction: str) -> None:
    c = Case(dtype=np.float32)
    count = 2 if direction == "bidirectional" else 1
    x = c.op("Transpose", c.bn(c.input("N", 3, 5), 3, gamma=c.mixed(3)), perm=[2, 0, 1])
    operands = [x, c.draw(count, gates * 4, 3), c.draw(count, gates * 4, 4)]
    operands += [c.draw(count, 2 * gates * 4)] if bias else []
    y, h = c.op(kind, *operands, outputs=2, hidden_size=4, direction=direction)
    folded = check(c.model(y, h), ort=True)
    assert folded.ops() == ["Transpose", kind]


def test_recurrent_with_a_computed_initial_state_absorbs_a_batch_norm() -> None:
    c = Case(dtype=np.float32)
    x = c.op("Transpose", c.bn(c.input("N", 3, 5), 3), perm=[2, 0, 1])
    h0 = c.input(1, "N", 4, name="h0")
    y, h = c.op("GRU", x, c.draw(1, 12, 3), c.draw(1, 12, 4), "", "", h0, outputs=2, hidden_size=4)
    check(c.model(y, h), ort=True)


def test_batch_norm_behind_a_recurrent_operator_stays() -> None:
    c = Case(dtype=np.float32)
    y = c.op("RNN", c.input(5, "N", 3), c.draw(1, 4, 3), c.draw(1, 4, 4), hidden_size=4)
    check(c.model(c.bn(c.op("Transpose", c.op("Squeeze", y, c.ints(1)), perm=[1, 2, 0]), 4)), "IO", ort=True)


def test_two_convs_with_one_weight_and_equal_batch_norms() -> None:
    c = Case()
    x, z, w = c.input("N", 3, 6), c.input("N", 3, 6, name="z"), c.draw(4, 3, 1)
    params = c.bn_params(4)
    ys = [c.op("BatchNormalization", c.op("Conv", v, w), *params) for v in (x, z)]
    folded = check(c.model(*ys))
    assert len([t for t in folded.after.graph.initializer if len(t.dims) == 3]) == 1


def test_two_convs_with_one_weight_and_different_batch_norms() -> None:
    """The weight can be in the units of one of them only; equal scales with other shifts are no obstacle."""
    c = Case()
    x, z, w = c.input("N", 3, 6), c.input("N", 3, 6, name="z"), c.draw(4, 3, 1)
    check(c.model(*(c.bn(c.op("Conv", v, w), 4) for v in (x, z))), "SHARED-WEIGHT", duplicate="never")
    c = Case()
    x, z, w = c.input("N", 3, 6), c.input("N", 3, 6, name="z"), c.draw(4, 3, 1)
    alike = {"gamma": np.arange(1, 5), "var": np.ones(4)}
    check(c.model(*(c.bn(c.op("Conv", v, w), 4, **alike) for v in (x, z))))


def test_a_weight_that_the_model_hands_out_stays() -> None:
    c = Case()
    w = c.draw(4, 3, 1, name="w")
    folded = check(c.model(c.bn(c.op("Conv", c.input("N", 3, 6), w), 4), w), "IO")
    assert len(folded.after.graph.node) == 2


def test_a_weight_that_something_else_reads_stays() -> None:
    """Weight tying: an operator that reads the weight as numbers would see the change."""
    c = Case()
    w = c.draw(4, 3)
    x = c.input("N", 3)
    y = c.bn(c.op("MatMul", x, c.op("Transpose", w)), 4)
    tied = c.op("MatMul", c.input("N", 4, name="z"), w)
    check(c.model(y, tied))  # the transposed copy is a constant of its own once folded
    c = Case()
    w = c.draw(3, 4)
    y = c.bn(c.op("MatMul", c.input("N", 3), w), 4)
    check(c.model(y, c.op("Mul", c.input(3, 4, name="z"), w)), "SHARED-WEIGHT", duplicate="never")


def test_a_bias_that_two_convs_share() -> None:
    c = Case()
    b = c.draw(4)
    x = c.input("N", 3, 6)
    ys = [c.bn(c.op("Conv", x, c.draw(4, 3, 1), b), 4) for _ in range(2)]
    check(c.model(*ys))


def test_weight_read_as_a_bias_elsewhere() -> None:
    c = Case()
    b = c.draw(4)
    y = c.bn(c.op("Conv", c.input("N", 3, 6), c.draw(4, 3, 1), b), 4)
    check(c.model(y, c.op("Relu", c.op("Add", c.input("N", 4, name="z"), b))))


def test_a_product_that_is_handed_out_does_not_take_the_bias_behind_it() -> None:
    """The MatMul's own result is an output as well: its weight must stay, whatever the Add behind it could become."""
    c = Case()
    y = c.op("MatMul", c.input("N", 4), c.draw(4, 3))
    z = c.op("Add", y, c.draw(3))
    check(c.model(c.op("Sigmoid", c.bn(z, 3)), y))


def with_bias(bias: np.ndarray | None) -> onnx.ModelProto:
    c = Case()
    operands = [c.input("N", 3, 4, 4, 4), c.draw(4, 3, 2, 2, 2)]
    y = c.bn(c.op("Conv", *operands, *([] if bias is None else [c.const(bias)])), 4)
    return c.model(y, shapes={y: ("N", 4, 3, 3, 3)})


def test_zeros_of_a_shape_that_no_runtime_accepts_are_no_bias() -> None:
    """What PyTorch's exporter makes up for a Conv3d without a bias."""
    broken, bare = (fold(with_bias(bias), check=bias is None) for bias in (np.zeros((4, 2)), None))
    assert broken.plan.folded == 1
    feeds = draw(bare.before, {"N": 2}, 0, {})
    assert_same(run(bare.before, feeds), run(broken.after, feeds))


@pytest.mark.parametrize("shape", [(4, 2), (3,)])
def test_a_bias_that_does_not_fit_stays(shape: tuple[int, ...]) -> None:
    folded = fold(with_bias(np.ones(shape)), check=False)
    assert codes(folded.plan) == ("BOUNDARY",)
    assert folded.ops() == ["Conv", "BatchNormalization"]
