"""BatchNormalization of every operator set: inference folds, anything else stays with its reason."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_case import Case, check, codes, fold, run


def conv_bn(opset: int, dtype: Any = np.float32, outputs: int = 1, **settings: Any) -> onnx.ModelProto:
    c = Case(opset=opset, dtype=dtype, ir_version=8 if opset < 22 else 10)
    y = c.conv(c.input(2, 3, 6, 6), 4, 3, 3, 3)
    y = c.bn(y, 4, gamma=c.mixed(4), outputs=outputs, **settings)
    return c.model(*([y] if isinstance(y, str) else y), shapes={y: (2, 4, 4, 4)} if isinstance(y, str) else None)


@pytest.mark.parametrize("opset", [1, 6])
def test_before_opset_7_a_batch_norm_trains_unless_told_otherwise(opset: int) -> None:
    assert codes(fold(conv_bn(opset, is_test=0)).plan) == ("TRAINING",)


@pytest.mark.parametrize("opset", [1, 6, 7, 8])
def test_statistics_per_element_stay(opset: int) -> None:
    """`spatial=0`: one mean for every element of a feature map, not for every channel."""
    c = Case(opset=opset, dtype=np.float32)
    y = c.op("Flatten", c.conv(c.input("N", 3, 2, 2), 4, 3, 1, 1))
    y = c.op("Reshape", y, c.ints(-1, 16), label="r") if opset > 4 else y
    given = {"is_test": 1} if opset < 7 else {}
    given |= {"consumed_inputs": [0, 0, 0, 1, 1]} if opset < 6 else {}
    y = c.op("BatchNormalization", y, *c.bn_params(16), spatial=0, **given)
    assert codes(fold(c.model(y)).plan) == ("BOUNDARY",)


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("used", [True, False])
def test_before_opset_14_more_outputs_are_what_asks_for_training(opset: int, used: bool) -> None:
    c = Case(opset=opset, dtype=np.float32)
    ys = c.op("BatchNormalization", c.conv(c.input(2, 3, 6, 6), 4, 3, 3, 3), *c.bn_params(4), outputs=5)
    shapes = dict.fromkeys(ys[1:], (4,))
    proto = c.model(*(ys if used else ys[:1]), shapes=shapes)
    assert codes(fold(proto).plan) == ("TRAINING",)


@pytest.mark.parametrize("opset", [14, 15, 22])
@pytest.mark.parametrize("outputs", [1, 3])
def test_training_mode_stays(opset: int, outputs: int) -> None:
    folded = fold(conv_bn(opset, outputs=outputs, training_mode=1))
    assert codes(folded.plan) == ("TRAINING",)
    assert folded.after.graph.node[-1].attribute[-1].name in ("training_mode", "epsilon", "momentum")
    assert any(a.name == "training_mode" and a.i == 1 for a in folded.after.graph.node[-1].attribute)


def test_running_statistics_that_are_read_stay() -> None:
    c = Case()
    y, mean, var = c.bn(c.conv(c.input(2, 3, 6, 6), 4, 3, 3, 3), 4, outputs=3, training_mode=1)
    folded = fold(c.model(y, c.op("Relu", mean), c.op("Relu", var)))
    assert codes(folded.plan) == ("TRAINING",)


@pytest.mark.parametrize("which", range(4))
def test_a_parameter_that_is_computed_stays(which: int) -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 6, 6), 4, 3, 3, 3)
    params = c.bn_params(4)
    params[which] = c.op("Exp", c.input(4, name="p"))
    check(c.model(c.op("BatchNormalization", y, *params)), "NOT-CONSTANT")


@pytest.mark.parametrize("which", range(4))
def test_a_parameter_that_callers_can_override_stays(which: int) -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 6, 6), 4, 3, 3, 3)
    params = c.bn_params(4)
    c.input(4, name=params[which])
    check(c.model(c.op("BatchNormalization", y, *params)), "NOT-CONSTANT")


def test_a_batch_norm_of_a_vector_stays() -> None:
    c = Case()
    y = c.op("BatchNormalization", c.op("Abs", c.input("N")), *c.bn_params(1))
    assert codes(fold(c.model(y)).plan) == ("BOUNDARY",)


def test_a_batch_norm_of_a_value_without_known_rank_stays() -> None:
    c = Case()
    x = c.op("Reshape", c.input("N", 4), c.input("R", name="s", dtype=np.int64))
    y = c.bn(x, 4)
    folded = fold(c.model(y, shapes={y: ("N", 4)}))
    assert folded.plan.kept == 1


def test_a_batch_norm_of_a_constant_that_is_handed_out_stays() -> None:
    c = Case()
    same = {"gamma": np.ones(3), "beta": np.zeros(3), "mean": np.zeros(3), "var": np.ones(3)}
    y = c.bn(c.draw(2, 3), 3, epsilon=0.0, **same)
    check(c.model(c.op("Relu", c.input("N", 3)), y), "IO")


def test_only_a_batch_norm() -> None:
    c = Case()
    check(c.model(c.bn(c.input("N", 3, "H", "W"), 3)), "IO")


@pytest.mark.parametrize("opset", [1, 6])
def test_inference_before_opset_7(opset: int) -> None:
    proto = conv_bn(opset, dtype=np.float64)
    assert fold(proto).ops() == ["Conv"]
    if opset == 6:
        check(proto)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 13, 14, 15, 17, 18, 21, 22, 23])
def test_inference_of_every_opset(opset: int) -> None:
    assert check(conv_bn(opset), ort=True).ops() == ["Conv"]


@pytest.mark.parametrize("settings", [{"momentum": 0.1}, {"training_mode": 0}, {"epsilon": 2.0}])
def test_attributes_that_say_nothing(settings: dict[str, Any]) -> None:
    assert check(conv_bn(18, dtype=np.float64, **settings)).ops() == ["Conv"]


def test_the_default_epsilon() -> None:
    """1e-5, whether written or not."""
    bare, written = (check(conv_bn(18, np.float64, **s)) for s in ({}, {"epsilon": 1e-5}))
    for a, b in zip(bare.after.graph.initializer, written.after.graph.initializer, strict=True):
        np.testing.assert_allclose(numpy_helper.to_array(a), numpy_helper.to_array(b), rtol=1e-9)


def test_optional_outputs_left_out_by_an_empty_name() -> None:
    c = Case()
    y = c.conv(c.input(2, 3, 6, 6), 4, 3, 3, 3)
    out = c.name("y")
    c.op("BatchNormalization", y, *c.bn_params(4), outputs=[out, "", ""])
    assert fold(c.model(out, shapes={out: (2, 4, 4, 4)})).plan.folded == 1


def test_the_onnx_domain_by_its_long_name() -> None:
    c = Case(opset=18)
    y = c.conv(c.input("N", 3, 6, 6), 4, 3, 3, 3)
    proto = c.model(c.bn(y, 4))
    for node in proto.graph.node:
        node.domain = "ai.onnx"
    proto.opset_import[0].domain = "ai.onnx"
    folded = fold(proto)
    assert folded.plan.folded == 1
    assert folded.ops() == ["Conv"]


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name
)
@pytest.mark.parametrize("stats", [np.float32, np.float64, None], ids=str)
def test_element_types(dtype: Any, stats: Any) -> None:
    """Since opset 14 and 15, statistics and scale may have types of their own."""
    c = Case(opset=18, dtype=dtype)
    y = c.op("Gemm", c.input("N", 3), c.draw(3, 4), c.draw(4))
    params = [c.const(v, dtype=stats or dtype) for v in (c.mixed(4), np.ones(4), np.ones(4) / 3, np.arange(1, 5.0))]
    y = c.op("BatchNormalization", y, *params)
    folded = fold(c.model(y))
    assert folded.ops() == ["Gemm"]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    assert {t.data_type for t in folded.after.graph.initializer} == {kind}
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    before, after = (run(m, {"x": x})[0].astype(np.float64) for m in (folded.before, folded.after))
    tolerance = {"float64": 1e-6 if stats is np.float32 else 1e-12, "float32": 1e-5, "float16": 2e-2, "bfloat16": 0.2}[
        np.dtype(dtype).name
    ]
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)


def test_a_weight_is_rounded_once() -> None:
    """float32 folding of the same numbers would be off by units in the last place."""
    c = Case(dtype=np.float32)
    w = c.draw(4, 3, 1, name="w")
    params = c.bn_params(4)
    folded = fold(c.model(c.op("BatchNormalization", c.op("Conv", c.input("N", 3, 5), w), *params)))
    wide = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in folded.before.graph.initializer}
    gamma, var = wide[params[0]], wide[params[3]]
    scale = gamma / np.sqrt(var + float(np.float32(1e-5)))
    np.testing.assert_array_equal(folded.initializer("w"), (wide["w"] * scale[:, None, None]).astype(np.float32))


def test_a_float16_weight_that_would_overflow_stays() -> None:
    c = Case(dtype=np.float16)
    y = c.op("Gemm", c.input("N", 3), c.draw(3, 4))
    y = c.bn(y, 4, gamma=np.full(4, 3e4), var=np.full(4, 1e-3))
    folded = fold(c.model(y))
    assert codes(folded.plan) == ("OVERFLOW",)


def test_a_cast_between_conv_and_batch_norm_is_a_boundary() -> None:
    c = Case(dtype=np.float32)
    y = c.op("Cast", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), to=TensorProto.DOUBLE)
    params = [c.const(np.ones(4), dtype=np.float64) for _ in range(4)]
    z = c.op("BatchNormalization", y, *params)
    check(c.model(c.op("Sigmoid", z)), "DTYPE", ort=True)
