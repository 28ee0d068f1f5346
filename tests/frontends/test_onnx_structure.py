"""Operators that move, mix or resize positions and channels: where units follow, and where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_case import Case, Folded, check, codes, fold

from bnfold.frontends.onnx import prepare
from bnfold.frontends.reading import read_graph
from bnfold.units.laws import read_laws


def still(channels: int) -> dict[str, np.ndarray]:
    """A BatchNorm that only scales."""
    return {"beta": np.zeros(channels), "mean": np.zeros(channels)}


def start(c: Case, channels: int = 4, size: Sequence[int | str] = ("H", "W")) -> str:
    return c.conv(c.input("N", 3, *size), channels, 3, *[1] * len(size))


def test_a_dynamic_index_of_channels_treats_them_alike() -> None:
    c = Case()
    y = c.op("Gather", start(c), c.input(2, name="i", dtype=np.int64), axis=1)
    check(c.model(c.op("Sigmoid", c.bn(y, 2))), "SHARED-UNIT")


def test_channels_padded_with_copies_of_others_stay() -> None:
    c = Case()
    y = c.op("Pad", start(c), c.ints(0, 1, 0, 0, 0, 1, 0, 0), mode="reflect")
    check(c.model(c.op("Sigmoid", c.bn(y, 6))), "SHARED-UNIT")


def test_interpolated_channels_stay() -> None:
    """5·1.1 is 5 again, so no size tells that channels are mixed."""
    c = Case()
    scales = c.const(np.array([1, 1.1, 1, 1]), dtype=np.float32)
    settings = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    y = c.op("Resize", start(c, 5, (6, 6)), "", scales, **settings)
    check(c.model(c.op("Sigmoid", c.bn(y, 5, gamma=np.arange(1, 6)))), "SHARED-UNIT")


def test_tiled_channels_stay() -> None:
    c = Case()
    y = c.op("Tile", start(c), c.ints(1, 2, 1, 1))
    check(c.model(c.op("Sigmoid", c.bn(y, 8))), "SHARED-UNIT")


def test_a_pad_with_another_constant_stays() -> None:
    c = Case()
    y = c.op("Pad", start(c), c.ints(0, 0, 1, 1, 0, 0, 1, 1), c.const(1.0))
    check(c.model(c.op("Sigmoid", c.bn(y, 4))), "NONLINEAR")


def test_a_pad_with_computed_amounts_stays() -> None:
    c = Case()
    y = c.op("Pad", start(c), c.input(8, name="p", dtype=np.int64))
    proto = c.model(c.op("Sigmoid", c.bn(y, 4)))
    check(proto, "NOT-CONSTANT", values={"p": [0, 0, 1, 0, 0, 0, 0, 1]})


@pytest.mark.parametrize("shape", [(2, 3, 0, 4), (0, 3, 5, 4)], ids=str)
def test_empty_tensors_stay(shape: tuple[int, ...]) -> None:
    c = Case()
    y = c.op("Reshape", c.bn(c.op("Sigmoid", c.input(*shape)), 3), c.ints(6, 0), allowzero=1)
    check(c.model(y), "BOUNDARY")
    c = Case()
    y = c.op("Flatten", c.bn(c.conv(c.input(*shape), 3, 3, 1, 1), 3))
    assert codes(fold(c.model(y)).plan) == ("BOUNDARY",)


Build = Callable[[Case, str], str]


def op(name: str, *operands: Any, **settings: Any) -> Build:
    """An operator on the feature and on constants (None: left out)."""

    def build(c: Case, x: str) -> str:
        return c.op(name, x, *("" if v is None else c.const(v) for v in operands), **settings)

    return build


AXES = np.array([2, 3])
PASSES = [
    pytest.param(op("Identity"), 4, id="Identity"),
    pytest.param(op("Dropout"), 4, id="Dropout"),
    pytest.param(op("Dropout", 0.5, np.array(False)), 4, id="Dropout, not training"),
    pytest.param(op("Cast", to=11), 4, id="Cast to the same type"),
    pytest.param(op("AveragePool", kernel_shape=[2, 2]), 4, id="AveragePool"),
    pytest.param(op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 4, id="AveragePool, pads not counted"),
    pytest.param(op("AveragePool", kernel_shape=[2, 2], count_include_pad=1), 4, id="AveragePool, counted, no pads"),
    pytest.param(op("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), 4, id="AveragePool, ceil"),
    pytest.param(op("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_UPPER"), 4, id="AveragePool, SAME"),
    pytest.param(op("MaxPool", kernel_shape=[2, 2]), 4, id="MaxPool"),
    pytest.param(op("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]), 4, id="MaxPool, padded"),
    pytest.param(op("GlobalAveragePool"), 4, id="GlobalAveragePool"),
    pytest.param(op("GlobalMaxPool"), 4, id="GlobalMaxPool"),
    pytest.param(op("ReduceMean", AXES), 4, id="ReduceMean"),
    pytest.param(op("ReduceMean", AXES, keepdims=0), 4, id="ReduceMean, no keepdims"),
    pytest.param(op("ReduceMean", np.array([-1])), 4, id="ReduceMean, negative axis"),
    pytest.param(op("ReduceMax", AXES, keepdims=0), 4, id="ReduceMax"),
    pytest.param(op("ReduceMin", AXES), 4, id="ReduceMin"),
    pytest.param(op("ReduceMean", np.array([], dtype=np.int64), noop_with_empty_axes=1), 4, id="Reduce of no axes"),
    pytest.param(op("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1]), mode="edge"), 4, id="Pad edge"),
    pytest.param(op("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1]), mode="reflect"), 4, id="Pad reflect"),
    pytest.param(op("Reshape", np.array([0, 4, -1])), 4, id="Reshape"),
    pytest.param(op("Reshape", np.array([-1, 2, 2, 6, 6])), 2, id="Reshape into groups"),
    pytest.param(op("Unsqueeze", np.array([-1])), 4, id="Unsqueeze"),
    pytest.param(op("Slice", np.array([1]), np.array([9]), np.array([2])), 4, id="Slice of rows"),
    pytest.param(op("Slice", np.array([3]), np.array([-9]), np.array([1]), np.array([-1])), 4, id="Slice backwards"),
    pytest.param(
        op("Slice", np.array([-1]), np.array([-9]), np.array([-3]), np.array([-2])), 2, id="every other, back"
    ),
    pytest.param(op("Slice", np.array([1, 2]), np.array([3, 5]), np.array([1, 3])), 2, id="Slice of two axes"),
    pytest.param(op("Slice", np.array([-3]), np.array([2**62]), np.array([1])), 3, id="Slice to the end"),
    pytest.param(op("Gather", np.array([2, 0, -1]), axis=1), 3, id="Gather of channels"),
    pytest.param(op("Gather", np.array([2, 0]), axis=-1), 4, id="Gather of columns"),
    pytest.param(op("Gather", np.array(1), axis=2), 4, id="Gather of a row"),
    pytest.param(op("Gather", np.array([[0, 1], [2, 3]]), axis=3), 4, id="Gather of columns into two axes"),
    pytest.param(op("Expand", np.array([1, 4, 6, 6])), 4, id="Expand to what it is"),
    pytest.param(op("Tile", np.array([1, 1, 2, 3])), 4, id="Tile of positions"),
    pytest.param(op("DepthToSpace", blocksize=2), 1, id="DepthToSpace"),
    pytest.param(op("DepthToSpace", blocksize=2, mode="CRD"), 1, id="DepthToSpace CRD"),
    pytest.param(op("Resize", None, None, np.array([2, 4, 12, 9])), 4, id="Resize to sizes"),
]


@pytest.mark.parametrize(("between", "channels"), PASSES)
def test_a_shift_passes_backwards(between: Build, channels: int) -> None:
    c = Case()
    y = between(c, start(c, 4, (6, 6)))
    check(c.model(c.op("Sigmoid", c.bn(y, channels))), sizes=({"N": 2},))


@pytest.mark.parametrize(
    ("between", "copies", "repeat"),
    [
        pytest.param(op("Flatten"), 36, np.repeat, id="Flatten"),
        pytest.param(op("SpaceToDepth", blocksize=2), 4, np.tile, id="SpaceToDepth"),
    ],
)
def test_a_batch_norm_behind_copies_of_a_channel_folds_if_it_treats_them_alike(
    between: Build, copies: int, repeat: Callable[[Any, int], Any]
) -> None:
    for alike in (True, False):
        c = Case()
        y = between(c, start(c, 4, (6, 6)))
        drawn = {k: c.rng.uniform(0.5, 2, 4 if alike else 4 * copies) for k in ("gamma", "beta", "mean", "var")}
        given = {k: repeat(v, copies) for k, v in drawn.items()} if alike else drawn
        check(c.model(c.op("Sigmoid", c.bn(y, 4 * copies, **given))), *([] if alike else ["SHARED-UNIT"]))


SCALE_ONLY = [
    pytest.param(
        op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), id="AveragePool, zeros count"
    ),
    pytest.param(op("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1])), id="Pad"),
    pytest.param(op("Pad", np.array([1, 2, 0, 1]), 0.0, np.array([2, -1])), id="Pad of named axes"),
    pytest.param(op("ReduceSum", AXES), id="ReduceSum"),
    pytest.param(op("CumSum", np.array(2)), id="CumSum"),
    pytest.param(op("CumSum", np.array(-1), reverse=1, exclusive=1), id="CumSum, reversed"),
]


@pytest.mark.parametrize("between", SCALE_ONLY)
def test_a_scale_passes_backwards_where_a_shift_does_not(between: Build) -> None:
    for given, kept in ((still(4), ()), ({}, ("ZERO-PAD",))):
        c = Case()
        y = between(c, start(c, 4, (6, 6)))
        check(c.model(c.op("Sigmoid", c.bn(y, 4, **given))), *kept)


FROM_ABOVE = [
    pytest.param(op("Flatten"), 144, id="Flatten"),
    pytest.param(op("Reshape", np.array([0, -1])), 144, id="Reshape"),
]


@pytest.mark.parametrize(("between", "features"), FROM_ABOVE)
def test_a_batch_norm_folds_forwards_through_a_flatten(between: Build, features: int) -> None:
    c = Case()
    y = between(c, c.bn(c.input("N", 4, 6, 6), 4, gamma=c.mixed(4)))
    check(c.model(c.op("Gemm", y, c.draw(features, 5), c.draw(5))))


def test_channel_shuffle() -> None:
    c = Case()
    y = c.op("Transpose", c.op("Reshape", start(c, 6, (4, 4)), c.ints(-1, 2, 3, 4, 4)), perm=[0, 2, 1, 3, 4])
    y = c.bn(c.op("Reshape", y, c.ints(-1, 6, 4, 4)), 6, gamma=c.mixed(6))
    check(c.model(c.op("Sigmoid", y)))


def test_channels_last_and_back() -> None:
    c = Case()
    y = c.op("Transpose", start(c), perm=[0, 2, 3, 1])
    y = c.op("Mul", y, c.draw(4, low=0.5))
    y = c.op("Transpose", y, perm=[0, 3, 1, 2])
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))))


def test_transpose_without_perm_reverses() -> None:
    c = Case()
    y = c.op("Transpose", c.op("Conv", c.input("N", 3, 5), c.draw(4, 3, 1)))
    check(c.model(c.op("Sigmoid", c.bn(y, 4))))


def test_squeeze_and_unsqueeze() -> None:
    c = Case()
    y = c.op("Squeeze", c.op("GlobalAveragePool", start(c)), c.ints(2, 3))
    y = c.op("Unsqueeze", c.bn(y, 4, gamma=c.mixed(4)), c.ints(1))
    check(c.model(c.op("Sigmoid", y)))


def test_expand_of_one_position() -> None:
    c = Case()
    y = c.op("Expand", c.op("GlobalAveragePool", start(c, 4, (6, 6))), c.ints(1, 1, 6, 6))
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))))


def test_expand_of_one_channel_stays() -> None:
    """All copies have the channel's unit, and the BatchNorm wants three."""
    c = Case()
    y = c.op("Expand", start(c, 1, (4, 4)), c.ints(1, 3, 1, 1))
    check(c.model(c.op("Sigmoid", c.bn(y, 3))), "SHARED-UNIT")


def test_concat_of_channels_splits_over_its_producers() -> None:
    c = Case()
    x = c.input("N", 3, "H", "W")
    y = c.op("Concat", c.conv(x, 4, 3, 1, 1), c.conv(x, 2, 3, 1, 1), axis=1)
    check(c.model(c.op("Sigmoid", c.bn(y, 6, gamma=c.mixed(6)))))


def test_concat_with_a_rigid_part_stays() -> None:
    c = Case()
    x = c.input("N", 3, "H", "W")
    y = c.op("Concat", c.conv(x, 4, 3, 1, 1), c.op("Sigmoid", x), axis=-3)
    check(c.model(c.op("Sigmoid", c.bn(y, 7))), "NONLINEAR")


def test_concat_of_positions_joins_units() -> None:
    c = Case()
    x = c.input("N", 3, 5, 5)
    y = c.op("Concat", c.conv(x, 4, 3, 1, 1), c.conv(x, 4, 3, 1, 1), axis=2)
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))))


@pytest.mark.parametrize("axis", [1, 2])
def test_concat_with_a_constant_rewrites_it(axis: int) -> None:
    c = Case()
    shape = (1, 2, 5, 5) if axis == 1 else (1, 4, 2, 5)
    y = c.op("Concat", c.draw(*shape), c.conv(c.input(1, 3, 5, 5), 4, 3, 1, 1), axis=axis)
    channels = 6 if axis == 1 else 4
    check(c.model(c.op("Sigmoid", c.bn(y, channels, gamma=c.mixed(channels)))))


def test_class_token_is_a_source() -> None:
    c = Case()
    tokens = c.op("Transpose", c.op("Reshape", start(c, 4, (4, 4)), c.ints(0, 4, 16)), perm=[0, 2, 1])
    y = c.op("Concat", c.op("Expand", c.draw(1, 1, 4), c.ints(2, 1, 4)), tokens, axis=1)
    y = c.bn(c.op("Transpose", y, perm=[0, 2, 1]), 4)
    check(c.model(c.op("Sigmoid", y)), sizes=({"N": 2},))


def test_concat_of_one_value_twice() -> None:
    c = Case()
    y = start(c)
    y = c.op("Concat", y, y, axis=1)
    copies = {k: np.tile(1 + np.arange(4) / 3, 2) for k in ("gamma", "beta", "mean", "var")}
    check(c.model(c.op("Sigmoid", c.bn(y, 8, **copies))))


SPLITS = [
    pytest.param({"num_outputs": 2}, None, 2, id="equal"),
    pytest.param({"num_outputs": 2}, None, 2, id="last one smaller"),
    pytest.param({}, (1, 3), 2, id="sizes"),
]


@pytest.mark.parametrize(("settings", "lengths", "count"), SPLITS)
@pytest.mark.parametrize("axis", [1, -3])
def test_split_of_channels(settings: dict, lengths: tuple[int, ...] | None, count: int, axis: int) -> None:
    c = Case()
    sizes = lengths or (2, 2)
    operands = [] if lengths is None else [c.ints(*lengths)]
    parts = c.op("Split", start(c), *operands, outputs=count, axis=axis, **settings)
    check(c.model(*(c.op("Sigmoid", c.bn(p, n, gamma=c.mixed(n))) for p, n in zip(parts, sizes, strict=True))))


def test_split_before_opset_18_and_13() -> None:
    for opset, settings in ((11, {"split": [1, 3]}), (13, {})):
        c = Case(opset=opset, dtype=np.float32)
        operands = [c.ints(1, 3)] if opset == 13 else []
        a, b = c.op("Split", start(c), *operands, outputs=2, axis=1, **settings)
        check(c.model(c.op("Sigmoid", c.bn(a, 1)), c.op("Sigmoid", c.bn(b, 3))), ort=True)


@pytest.mark.parametrize("lengths", [2, (1, 3)])
def test_split_to_sequence_taken_apart_at_constant_places(lengths: int | tuple[int, ...]) -> None:
    c = Case()
    s = c.op("SplitToSequence", start(c), c.const(np.array(lengths)), axis=1)
    parts = [c.op("SequenceAt", s, c.const(np.array(i))) for i in (0, 1)]
    sizes = (2, 2) if isinstance(lengths, int) else lengths
    ys = [c.op("Sigmoid", c.bn(p, n)) for p, n in zip(parts, sizes, strict=True)]
    folded = check(c.model(*ys, shapes={y: ("N", n, "H", "W") for y, n in zip(ys, sizes, strict=True)}))
    assert "SequenceAt" not in folded.ops()


def test_split_to_sequence_taken_apart_from_the_back() -> None:
    c = Case()
    s = c.op("SplitToSequence", start(c), c.const(np.array([1, 3])), axis=-3)
    y = c.op("SequenceAt", s, c.const(np.array(-1)))
    z = c.op("Sigmoid", c.bn(y, 3))
    check(c.model(z, shapes={z: ("N", 3, "H", "W")}))


def test_slice_of_opset_1_has_its_bounds_as_attributes() -> None:
    c = Case(opset=9, dtype=np.float32)
    y = c.op("Slice", start(c), starts=[1, 0], ends=[3, -1], axes=[1, 2])
    check(c.model(c.op("Sigmoid", c.bn(y, 2))), ort=True)


def test_slice_with_computed_bounds() -> None:
    for axis, kept in ((2, ()), (1, ("SHARED-UNIT",))):
        c = Case()
        y = c.op("Slice", start(c), c.input(1, name="s", dtype=np.int64), c.ints(4), c.ints(axis))
        z = c.op("Sigmoid", c.bn(y, 4))
        check(c.model(z, shapes={z: ("N", "C", "?", "W")}), *kept, values={"s": [0]})


def test_slice_that_takes_nothing() -> None:
    c = Case()
    y = c.op("Slice", start(c), c.ints(3), c.ints(1), c.ints(2))
    check(c.model(c.op("Sigmoid", c.bn(y, 4))))


def test_an_embedding_takes_up_the_batch_norm_behind_it() -> None:
    c = Case()
    i = c.input("N", 5, name="i", dtype=np.int64)
    y = c.op("Transpose", c.op("Gather", c.draw(7, 4), i), perm=[0, 2, 1])
    folded = check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))))
    assert folded.ops() == ["Gather", "Transpose", "Sigmoid"]


def test_a_table_that_is_read_twice_stays() -> None:
    c = Case()
    i, table = c.input("N", name="i", dtype=np.int64), c.draw(7, 4)
    y = c.op("Sigmoid", c.bn(c.op("Gather", table, i), 4))
    check(c.model(y, c.op("Gather", table, i)), "SHARED-WEIGHT")


def test_position_embeddings_take_up_a_shift() -> None:
    c = Case()
    y = c.op("Add", c.op("MatMul", c.input("N", 5, 3), c.draw(3, 4)), c.draw(1, 5, 4))
    y = c.op("Transpose", c.bn(c.op("Transpose", y, perm=[0, 2, 1]), 4, gamma=c.mixed(4)), perm=[0, 2, 1])
    check(c.model(c.op("Sigmoid", y)))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("scale", [2.0, 0.5])
def test_resize_lets_everything_through(mode: str, coordinates: str, scale: float) -> None:
    c = Case(dtype=np.float32)
    scales = c.const(np.array([1, 1, scale, scale]))
    y = c.op("Resize", start(c), "", scales, mode=mode, coordinate_transformation_mode=coordinates)
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))), ort=True)


def test_resize_of_named_axes() -> None:
    c = Case(dtype=np.float32)
    y = c.op("Resize", start(c), "", c.const(np.array([2.0, 1.5])), mode="linear", axes=[2, 3])
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))), ort=True)


@pytest.mark.parametrize(
    ("fill", "scales_only", "kept"),
    [(0.0, True, ()), (0.0, False, ("ZERO-PAD",)), (3.0, True, ("NONLINEAR",)), (3.0, False, ("NONLINEAR",))],
)
def test_resize_that_looks_outside(fill: float, scales_only: bool, kept: tuple[str, ...]) -> None:
    """It reads 0 there, which lets a scale through, or another constant, which lets nothing."""
    c = Case(dtype=np.float32)
    roi, scales = c.const(np.array([0, 0, -0.5, 0.0, 1, 1, 1.5, 1])), c.const(np.array([1, 1, 2.0, 2]))
    settings = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": fill, "mode": "linear"}
    y = c.op("Resize", start(c, 4, (4, 4)), roi, scales, **settings)
    check(c.model(c.op("Sigmoid", c.bn(y, 4, **(still(4) if scales_only else {})))), *kept, ort=True)


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_upsample_and_the_first_resize(opset: int) -> None:
    c = Case(opset=opset, dtype=np.float32)
    scales = np.array([1, 1, 2, 2], dtype=np.float32)
    if opset == 7:
        y = c.op("Upsample", start(c), scales=scales.tolist())
    else:
        y = c.op("Upsample" if opset == 9 else "Resize", start(c), c.const(scales), mode="nearest")
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))), ort=True)


def test_resize_to_a_computed_size() -> None:
    c = Case(dtype=np.float32)
    x = c.input("N", 3, "H", "W")
    other = c.input("N", 3, "P", "Q", name="other")
    y = c.conv(x, 4, 3, 1, 1)
    head = c.op("Slice", c.op("Shape", y), c.ints(0), c.ints(2))
    sizes = c.op("Concat", head, c.op("Slice", c.op("Shape", other), c.ints(2), c.ints(4)), axis=0)
    y = c.op("Resize", y, "", "", sizes, mode="nearest")
    z = c.op("Sigmoid", c.bn(y, 4))
    sizes_of = ({"N": 2, "H": 3, "W": 4, "P": 6, "Q": 5},)
    check(c.model(z, shapes={z: ("N", 4, "P", "Q")}), ort=True, sizes=sizes_of)


def test_pad_of_opset_2_and_11() -> None:
    for opset in (9, 11):
        c = Case(opset=opset, dtype=np.float32)
        pads = [0, 0, 1, 1, 0, 0, 1, 1]
        y = c.op("Pad", start(c), **{"pads": pads}) if opset == 9 else c.op("Pad", start(c), c.ints(*pads))
        check(c.model(c.op("Sigmoid", c.bn(c.conv(y, 4, 4, 3, 3), 4))), ort=True)


def test_pad_that_wraps() -> None:
    c = Case(opset=19, ir_version=9)
    y = c.op("Pad", start(c), c.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="wrap")
    check(c.model(c.op("Sigmoid", c.bn(y, 4))))


def test_pad_that_only_crops_lets_a_shift_through() -> None:
    c = Case(dtype=np.float32)
    y = c.op("Pad", start(c), c.ints(0, 0, -1, 0, 0, 0, 0, -2))
    check(c.model(c.op("Sigmoid", c.bn(y, 4))), ort=True)


def test_pad_that_crops_one_end_and_pads_the_other_lets_a_scale_through() -> None:
    for given, kept in ((still(4), ()), ({}, ("ZERO-PAD",))):
        c = Case(dtype=np.float32)
        y = c.op("Pad", start(c), c.ints(0, 0, 1, -1, 0, 0, 0, 1))
        check(c.model(c.op("Sigmoid", c.bn(y, 4, **given))), *kept, ort=True)


def test_zero_channels_are_padded_on() -> None:
    """Channels of zeros can have any scale and no shift."""
    for given, kept in (({"beta": np.zeros(6), "mean": np.zeros(6)}, ()), ({}, ("ZERO-PAD",))):
        c = Case()
        y = c.op("Pad", start(c), c.ints(0, 1, 0, 0, 0, 1, 0, 0))
        check(c.model(c.op("Sigmoid", c.bn(y, 6, **given))), *kept)


def test_max_pool_hands_out_places_that_do_not_change() -> None:
    c = Case(dtype=np.float32)
    y, places = c.op("MaxPool", c.bn(start(c), 4), outputs=2, kernel_shape=[2, 2])
    check(c.model(c.op("Sigmoid", c.bn(y, 4)), places, **{places: 7}), ort=True)


def test_max_pool_with_a_negative_gamma_behind_it_stays() -> None:
    c = Case()
    y = c.op("MaxPool", start(c), kernel_shape=[2, 2])
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))), "NEGATIVE-GAMMA")


@pytest.mark.parametrize(("mode", "kept"), [("zeros", ("ZERO-PAD",)), ("border", ()), ("reflection", ())])
def test_grid_sample(mode: str, kept: tuple[str, ...]) -> None:
    c = Case(dtype=np.float32)
    grid = c.input("N", 5, 5, 2, name="grid")
    y = c.op("GridSample", start(c), grid, padding_mode=mode)
    check(c.model(c.op("Sigmoid", c.bn(y, 4, gamma=c.mixed(4)))), *kept, ort=True)


@pytest.mark.parametrize("axes", ["attribute", "input"])
def test_reduce_of_old_and_new_opsets(axes: str) -> None:
    c = Case(opset=11 if axes == "attribute" else 18, dtype=np.float32)
    y = c.op("ReduceMean", start(c), axes=[2, 3]) if axes == "attribute" else c.op("ReduceMean", start(c), c.ints(2, 3))
    check(c.model(c.op("Sigmoid", c.bn(y, 4))), ort=True)


def test_reduce_with_computed_axes_stays() -> None:
    """Not even its rank is known."""
    c = Case()
    y = c.op("ReduceMean", start(c), c.input(1, name="a", dtype=np.int64))
    z = c.op("Sigmoid", c.bn(y, 4))
    check(c.model(z, shapes={z: ("N", 4, "H", "W")}), "BOUNDARY", values={"a": [2]})


def test_reduce_over_channels_treats_them_alike() -> None:
    c = Case()
    y = c.op("ReduceMean", start(c), c.ints(1))
    folded: Folded = check(c.model(c.op("Sigmoid", c.bn(y, 1))))
    assert folded.plan.folded == 1


def test_position_logits_do_not_get_a_unit_for_each_pair_of_positions() -> None:
    """BoTNet adds logits of rows and of columns: a sum of channels on different axes, 64² pairs and more."""
    c = Case()
    size = 80
    rows = c.op("MatMul", c.input("N", 4, 5, name="r"), c.draw(5, size))
    columns = c.op("MatMul", c.input("N", 4, 5, name="c"), c.draw(5, size))
    total = c.op("Add", c.op("Unsqueeze", rows, c.ints(3)), c.op("Unsqueeze", columns, c.ints(2)))
    proto = c.model(c.op("Softmax", total, axis=-1))
    check(proto)
    prepared = prepare(ir.from_proto(proto))
    read = read_graph(prepared.model.graph, prepared.labels, prepared.names).graph
    assert read_laws(read).size < 1000
