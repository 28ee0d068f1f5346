"""What is the same at every run is a weight, however it is written down; what callers can override is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_case import Case, check, fold

import bnfold


def test_a_weight_that_callers_can_override_is_no_constant() -> None:
    c = Case()
    w = c.draw(4, 3, 1, name="w")
    c.input("N", 3, 5)
    c.input(4, 3, 1, name="w")
    folded = check(c.model(c.op("Sigmoid", c.bn(c.op("Conv", "x", w), 4))), "NOT-CONSTANT")
    assert [i.name for i in folded.after.graph.input] == ["x", "w"]
    assert "w" in {t.name for t in folded.after.graph.initializer}


def test_a_multiplier_that_callers_can_override_is_no_constant() -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    k = c.draw(4, 1, 1, name="k")
    c.input(4, 1, 1, name="k")
    folded = check(c.model(c.op("Sigmoid", c.op("Mul", y, k))))
    assert folded.ops() == ["Conv", "Mul", "Sigmoid"]


def test_a_chain_from_an_overridable_weight_is_no_constant() -> None:
    c = Case()
    c.input("N", 3)
    w = c.draw(4, 3, name="w")
    c.input(4, 3, name="w")
    check(c.model(c.op("Sigmoid", c.bn(c.op("MatMul", "x", c.op("Transpose", w)), 4))), "NONLINEAR")


def test_pads_that_callers_can_override_stay_out_of_the_conv() -> None:
    c = Case()
    c.input("N", 3, 5, 5)
    pads = c.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]), name="pads")
    c.input(8, name="pads", dtype=np.int64)
    y = c.op("Pad", "x", pads)
    proto = c.model(c.op("Conv", y, c.draw(4, 3, 3, 3)), shapes={"v1": ("N", 4, "H", "W")})
    assert fold(proto).ops() == ["Pad", "Conv"]


@pytest.mark.parametrize("quantized", ["weight", "activation", "both"])
def test_quantized_chains_are_left_alone(quantized: str) -> None:
    c = Case(dtype=np.float32)
    y = c.input("N", 3, 5, 5)
    scale, zero = c.const(0.05), c.const(np.array(3, dtype=np.int8))
    if quantized in ("activation", "both"):
        y = c.op("DequantizeLinear", c.op("QuantizeLinear", y, scale, zero), scale, zero)
    if quantized in ("weight", "both"):
        w = c.const(c.rng.integers(-9, 9, (4, 3, 1, 1)).astype(np.int8))
        y = c.op("Conv", y, c.op("DequantizeLinear", w, scale, zero))
    else:
        y = c.conv(y, 4, 3, 1, 1)
    folded = check(
        c.model(c.op("Sigmoid", c.bn(y, 4))), *([] if quantized == "activation" else ["NOT-CONSTANT"]), ort=True
    )
    assert folded.ops().count("DequantizeLinear") == (2 if quantized == "both" else 1)


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_chance_is_no_constant(op: str) -> None:
    c = Case()
    w = c.op(op, c.const(np.full((3, 4), 0.5)))
    assert fold(c.model(c.op("Sigmoid", c.bn(c.op("MatMul", c.input("N", 3), w), 4)))).plan.kept == 1


@pytest.mark.parametrize("op", ["RandomNormalLike", "Bernoulli"])
def test_two_draws_are_not_one(op: str) -> None:
    c = Case()
    p = c.op("Sigmoid", c.bn(c.op("Gemm", c.input("N", 3), c.draw(3, 4)), 4))
    folded = fold(c.model(c.op("Sub", c.op(op, p), c.op(op, p))))
    assert folded.ops().count(op) == 2


def test_two_calls_of_an_unknown_operator_are_not_one() -> None:
    c = Case(domains={"my": 1})
    p = c.op("Sigmoid", c.input("N", 3))
    y = c.op("Sub", c.op("Noise", p, domain="my"), c.op("Noise", p, domain="my"))
    assert fold(c.model(y, shapes={y: ("N", 3)})).ops().count("Noise") == 2


def test_a_constant_too_large_to_write_down_stays_a_program() -> None:
    c = Case(dtype=np.float32)
    big = c.op("Expand", c.const(1.0), c.ints(1 << 14, 1 << 14))
    y = c.bn(c.op("Gemm", c.input("N", 3), c.draw(3, 4)), 4)
    folded = fold(c.model(y, c.op("ReduceMax", big, keepdims=0)))
    assert "Expand" in folded.ops()
    assert folded.after.ByteSize() < 1 << 20


def test_constants_that_are_no_numbers_stay() -> None:
    c = Case()
    text = c.op("Constant", value_strings=["a", "b"])
    y = c.bn(c.op("Gemm", c.input("N", 3), c.draw(3, 4)), 4)
    folded = check(c.model(y, text, **{text: TensorProto.STRING}))
    assert folded.ops() == ["Constant", "Gemm"]


def test_sequences_and_strings_of_constants_stay() -> None:
    c = Case()
    s = c.op("SequenceConstruct", c.draw(2, 3), c.draw(2, 3))
    w = c.op("Transpose", c.op("ConcatFromSequence", s, axis=0))
    y = c.bn(c.op("MatMul", c.input("N", 3), w), 4)
    check(c.model(y, shapes={y: ("N", 4)}), "IO")
    c = Case()
    s = c.op("Cast", c.op("Cast", c.draw(3), to=TensorProto.STRING), to=TensorProto.DOUBLE)
    check(c.model(c.op("Sigmoid", c.bn(c.op("Mul", c.op("Sigmoid", c.input("N", 3)), s), 3))), "NONLINEAR")


@pytest.mark.parametrize("op", ["Relu", "Neg", "Identity", "Transpose"])
def test_constants_that_are_handed_out(op: str) -> None:
    c = Case()
    y = c.bn(c.op("Gemm", c.input("N", 3), c.draw(3, 4)), 4)
    check(
        c.model(y, c.op(op, c.draw(3)), c.op("Mul", c.draw(3), c.draw(3)), c.op("MatMul", c.draw(2, 2), c.draw(2, 2)))
    )


def test_a_weight_that_is_handed_out() -> None:
    c = Case()
    w = c.draw(3, 4, name="w")
    check(c.model(c.bn(c.op("Gemm", c.input("N", 3), w), 4), w), "IO")


def test_before_ir_version_4_every_initializer_is_an_input_and_still_a_constant() -> None:
    c = Case(ir_version=3, opset=9, dtype=np.float32)
    y = c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4)
    for tensor in c.initializers:
        c.inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert check(c.model(y), ort=True).ops() == ["Conv"]


def test_constant_nodes_are_weights() -> None:
    c = Case()
    y = c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1)
    proto = c.model(c.bn(y, 4))
    for tensor in reversed(proto.graph.initializer):
        proto.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del proto.graph.initializer[:]
    assert check(proto).ops() == ["Conv"]


@pytest.mark.parametrize("settings", [{"value_float": 2.0}, {"value_floats": [2.0]}])
def test_constants_in_their_short_spellings(settings: dict) -> None:
    c = Case(dtype=np.float32)
    y = c.op("Mul", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), c.op("Constant", **settings))
    assert check(c.model(c.op("Sigmoid", y)), ort=True).ops() == ["Conv", "Sigmoid"]


def test_chains_of_constants() -> None:
    c = Case()
    x = c.input("N", 3)
    w = c.op("Transpose", c.op("Reshape", c.draw(12), c.ints(4, 3)))
    w = c.op("Mul", w, c.op("Sqrt", c.const(4.0)))
    b = c.op("Cast", c.op("Unsqueeze", c.const(np.arange(4, dtype=np.int64)), c.ints(0)), to=TensorProto.DOUBLE)
    y = c.op("Add", c.op("MatMul", x, w), b)
    assert check(c.model(c.op("Sigmoid", c.bn(y, 4)))).ops() == ["MatMul", "Add", "Sigmoid"]


def test_the_zero_bias_of_a_raw_export() -> None:
    """`Expand(CastLike(0, x), shape)`: the type is all it takes from the feature."""
    c = Case()
    x = c.input("N", 3, 5, 5)
    b = c.op("Expand", c.op("CastLike", c.const(np.float32(0), dtype=np.float32), x), c.ints(4))
    y = c.op("Conv", x, c.draw(4, 3, 1, 1), b)
    assert check(c.model(c.bn(y, 4))).ops() == ["Conv"]


def test_a_shape_of_static_sizes_is_a_constant() -> None:
    c = Case()
    x = c.input(2, 3, 4, 4)
    y = c.conv(x, 4, 3, 1, 1)
    y = c.op("Reshape", y, c.op("Concat", c.op("Shape", x, start=0, end=1), c.ints(-1), axis=0))
    assert check(c.model(c.bn(c.op("Reshape", y, c.ints(2, 4, 4, 4)), 4))).ops() == ["Conv", "Reshape", "Reshape"]


def test_a_reshape_to_the_size_of_its_batch() -> None:
    c = Case()
    x = c.input("N", 3, 4, 4)
    n = c.op("Gather", c.op("Shape", x), c.const(np.array(0)))
    target = c.op("Concat", c.op("Unsqueeze", n, c.ints(0)), c.ints(4), c.ints(16), axis=0)
    y = c.op("Reshape", c.conv(x, 4, 3, 1, 1), target)
    proto = c.model(c.bn(y, 4))
    assert check(onnx.shape_inference.infer_shapes(proto)).ops() == ["Conv", "Reshape"]
    check(proto)


def test_weight_standardisation_is_a_constant() -> None:
    """A BatchNormalization over the weight (timm's ScaledStdConv): a site that folded into the conv."""
    c = Case()
    w = c.op("Reshape", c.draw(4, 3, 3, 3), c.ints(1, 4, 27))
    w = c.op("Reshape", c.bn(w, 4), c.ints(4, 3, 3, 3))
    y = c.op("Conv", c.input("N", 3, 6, 6), w, label="conv")
    folded = check(c.model(c.op("Sigmoid", c.bn(y, 4))))
    assert folded.ops() == ["Conv", "Sigmoid"]
    assert [site.into for site in folded.plan.sites] == [("conv",), ("conv",)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_chain_of_floats_is_computed_in_float64_and_rounded_once(dtype: str) -> None:
    """Weight standardisation as a program (BiT): each of its steps would round."""
    rng = np.random.default_rng(0)
    w, gain = rng.normal(3.0, 0.1, (4, 3, 3, 3)).astype(dtype), rng.normal(size=(4, 1, 1, 1)).astype(dtype)
    c = Case(dtype=dtype)
    stored = c.const(w)
    centred = c.op("Sub", stored, c.op("ReduceMean", stored, c.ints(1, 2, 3)))
    square = c.op("ReduceMean", c.op("Mul", centred, centred), c.ints(1, 2, 3))
    ready = c.op("Mul", c.op("Div", centred, c.op("Sqrt", square)), c.const(gain))
    folded = fold(c.model(c.op("Conv", c.input("N", 3, 6, 6), ready)))
    wide = w.astype(np.float64) - w.astype(np.float64).mean(axis=(1, 2, 3), keepdims=True)
    expected = wide / np.sqrt((wide**2).mean(axis=(1, 2, 3), keepdims=True)) * gain.astype(np.float64)
    [weight] = map(numpy_helper.to_array, folded.after.graph.initializer)
    np.testing.assert_array_equal(weight, expected.astype(dtype))


def test_a_cast_within_a_chain_rounds() -> None:
    """What the model rounds on purpose stays rounded."""
    w = np.random.default_rng(0).normal(size=(4, 3, 1, 1))
    c = Case(dtype="float32")
    half = c.op("Cast", c.op("Mul", c.const(w), c.const(np.array(3.0))), to=TensorProto.FLOAT16)
    y = c.op("Conv", c.input("N", 3, 6, 6), c.op("Cast", half, to=TensorProto.FLOAT))
    [weight] = map(numpy_helper.to_array, check(c.model(y)).after.graph.initializer)
    product = (w.astype(np.float32) * np.float32(3.0)).astype(np.float16)
    np.testing.assert_array_equal(weight, product.astype(np.float32))


def test_weight_standardisation_in_training_mode_stays() -> None:
    c = Case()
    w = c.op("Reshape", c.draw(4, 3, 3, 3), c.ints(1, 4, 27))
    w, _, _ = c.bn(w, 4, training_mode=1, outputs=3)
    y = c.op("Conv", c.input("N", 3, 6, 6), c.op("Reshape", w, c.ints(4, 3, 3, 3)))
    assert [s.reason.code for s in fold(c.model(c.op("Sigmoid", c.bn(y, 4)))).plan.sites] == [
        "TRAINING",
        "NOT-CONSTANT",
    ]


def test_an_empty_part_of_a_concat() -> None:
    c = Case()
    y = c.conv(c.input(1, 3, 5), 4, 3, 1)
    y = c.op("Concat", y, c.const(np.zeros((1, 0, 5))), axis=1)
    check(c.model(c.op("Sigmoid", c.bn(y, 4))), "BOUNDARY")


def test_shared_parameters_of_two_batch_norms() -> None:
    c = Case()
    x, params = c.input("N", 3, 5, 5), c.bn_params(4)
    ys = [c.op("Sigmoid", c.op("BatchNormalization", c.conv(x, 4, 3, 1, 1), *params)) for _ in range(2)]
    kept = c.op("Sigmoid", c.op("BatchNormalization", c.op("Sigmoid", c.conv(x, 4, 3, 1, 1)), *params))
    folded = check(c.model(*ys, kept), "NONLINEAR")
    np.testing.assert_array_equal(folded.initializer(params[0]), numpy_helper.to_array(c.initializers[0]))


def test_one_array_in_four_roles() -> None:
    """gamma, beta, mean and var are one initializer."""
    c = Case()
    p = c.const(np.arange(1, 5.0))
    check(c.model(c.op("BatchNormalization", c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), p, p, p, p)))


def test_what_needs_no_change_keeps_its_bytes() -> None:
    c = Case()
    w, b = c.draw(4, 3, 3, 3), c.draw(4)
    y = c.op("Conv", c.op("Sigmoid", c.input("N", 3, 6, 6)), w, b)
    y = c.op("Sigmoid", c.bn(c.conv(c.op("Sigmoid", y), 4, 4, 1, 1), 4))
    folded = check(c.model(y))
    for tensor in c.initializers[:2]:
        same = next(t for t in folded.after.graph.initializer if t.name == tensor.name)
        assert same.SerializeToString() == tensor.SerializeToString() or same.raw_data == tensor.raw_data


def test_weights_of_vanished_operators_are_gone() -> None:
    c = Case()
    y = c.bn(c.conv(c.input("N", 3, 5, 5), 4, 3, 1, 1), 4)
    folded = check(c.model(y))
    used = {name for node in folded.after.graph.node for name in node.input}
    assert {t.name for t in folded.after.graph.initializer} <= used
    assert isinstance(folded.after, onnx.ModelProto)


def test_the_tensor_of_a_constant_keeps_its_own_name_in_the_model_that_came_in() -> None:
    """onnx_ir writes a tensor's name through to the message it was read from."""
    c = Case(dtype=np.float32)
    y = c.op("Conv", c.input(1, 3, 4, 4), "kernel", label="conv")
    tensor = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "a name of its own")
    c.nodes.insert(0, helper.make_node("Constant", [], ["kernel"], value=tensor))
    proto = c.model(c.bn(y, 2))
    before = proto.SerializeToString(deterministic=True)
    folded = bnfold.fold(proto).model
    assert proto.SerializeToString(deterministic=True) == before
    assert [i.name for i in folded.graph.initializer] == ["kernel", "kernel_bias"]


def test_a_constant_cast_to_a_type_that_must_be_inferred() -> None:
    """Nothing declares the type of the product; a second fold would find the constant that the first one missed."""
    c = Case(dtype=np.float32)
    x = c.op("Mul", c.input(1, 3, 4, 4), c.const(np.array(2.0)))
    factor = c.op("CastLike", c.const(np.array(3.0), dtype=np.float64), x)
    folded = check(c.model(c.op("Sigmoid", c.op("Mul", c.op("Sqrt", x), factor))))
    assert "CastLike" not in folded.ops()
