"""The evaluator against the standard's own cases, onnx.reference, onnxruntime and the naive meaning of graphs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from property.spec import Spec
from property.strategy import specs
from property.to_onnx import to_onnx

from bnfold.errors import UnsupportedError, UsageError
from bnfold.float64 import evaluator
from bnfold.float64.evaluator import OPERATORS, Evaluator
from bnfold.running.runners import OrtRunner

LOOSE = 1e-4  # the cases hold float32, some of them printed with few digits
ROUNDED = ("BFLOAT16", "FLOAT8", "FLOAT4", "FLOAT16", "bf16", "bfloat16")  # what rounds is not rounded here
REFUSED = (
    "bernoulli", "bitcast", "flexattention", "quantizelinear_e4m3fn", "quantizelinear_e5m2", "float4e2m1",
    "quantizelinear_int4", "quantizelinear_uint4", "quantizelinear_int2", "quantizelinear_uint2", "scan_sum",
    "UINT4", "INT4", "UINT2", "INT2",
    "_expanded",  # the same cases through functions, which `test_functions_are_inlined…` stands for
)  # fmt: skip
OTHERWISE = {
    "test_dynamicquantizelinear": "rounds a value that float32 puts on the other side of one half",
    "test_resize_downsample_scales_linear_align_corners": "its length is fractional; onnxruntime rounds it",
    "test_resize_downsample_scales_cubic_align_corners": "the same",
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def one_node(
    op: str,
    feeds: Mapping[str, NDArray[Any]],
    outputs: int = 1,
    opset: int = 21,
    dtype: int = TensorProto.FLOAT,
    **attrs: Any,
) -> onnx.ModelProto:
    """A model of one operator; its operands are the inputs, in order, those called `_` are left out."""
    given = {name: x for name, x in feeds.items() if not name.startswith("_")}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape))
        for name, x in given.items()
    ]
    names = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op, ["" if n.startswith("_") else n for n in feeds], names, name="node", **attrs)
    results = [helper.make_tensor_value_info(name, dtype, None) for name in names]
    graph = helper.make_graph([node], "one", inputs, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def standard_cases() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they divide by zero on purpose
        found = load_model_tests(kind="node")
    return [case for case in found if not any(word in case.name for word in (*ROUNDED, *REFUSED))]


def arrays(value: Any) -> Any:
    if isinstance(value, list):
        return [arrays(item) for item in value]
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def test_the_standards_own_cases() -> None:
    wrong, seen = {}, 0
    for case in standard_cases():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = Evaluator(case.model)
            for inputs, outputs in case.data_sets:
                fed = {v.name: arrays(x) for v, x in zip(case.model.graph.input, inputs, strict=False)}
                got = run.run(fed)
                for value, expected in zip(case.model.graph.output, outputs, strict=True):
                    want = arrays(expected)
                    if isinstance(want, list) or np.asarray(want).dtype.kind in "OUS":
                        continue
                    seen += 1
                    if not close(got[value.name], np.asarray(want)):
                        wrong[case.name] = got[value.name]
    assert seen > 900
    assert set(wrong) == set(OTHERWISE)


def close(got: NDArray[Any], want: NDArray[Any]) -> bool:
    tolerance = 1e-2 if want.dtype == np.float16 else LOOSE
    if got.shape != want.shape or (got.dtype.kind != want.dtype.kind and want.dtype.kind != "V"):
        return False
    return np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance, equal_nan=True)


RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 4, 7, 6)).astype(np.float32)
WEIGHT = RNG.standard_normal((6, 2, 3, 2)).astype(np.float32)


def ort(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    return list(OrtRunner(model.SerializeToString(), optimize=False).run(feeds).values())


def check_with_ort(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> None:
    fed = {name: x for name, x in feeds.items() if not name.startswith("_")}
    got, want = list(Evaluator(model).run(fed).values()), ort(model, fed)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == (np.float64 if theirs.dtype.kind == "f" else theirs.dtype)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "attrs",
    [
        {"group": 2},
        {"group": 2, "pads": [1, 0, 2, 3], "strides": [2, 1]},
        {"group": 2, "dilations": [2, 1], "auto_pad": "SAME_UPPER"},
        {"group": 2, "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"group": 2, "auto_pad": "VALID"},
    ],
    ids=str,
)
def test_convolutions(attrs: dict[str, Any]) -> None:
    feeds = {"x": IMAGE, "w": WEIGHT, "b": RNG.standard_normal(6).astype(np.float32)}
    if attrs.get("dilations") and attrs.get("auto_pad"):  # onnxruntime takes no dilation there: by hand
        by_hand = {"group": 2, "dilations": [2, 1], "pads": [2, 0, 2, 1]}
        ours, theirs = (Evaluator(one_node("Conv", feeds, **a)).run(feeds)["y0"] for a in (attrs, by_hand))
        np.testing.assert_array_equal(ours, theirs)
        return
    check_with_ort(one_node("Conv", feeds, **attrs), feeds)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"group": 2, "strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [15, 13]},
        {"dilations": [2, 2], "pads": [1, 1, 1, 1]},
    ],
    ids=str,
)
def test_transposed_convolutions(attrs: dict[str, Any]) -> None:
    weight = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    bias = RNG.standard_normal(3 * attrs.get("group", 1)).astype(np.float32)
    feeds = {"x": IMAGE, "w": weight, "b": bias}
    check_with_ort(one_node("ConvTranspose", feeds, **attrs), feeds)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool", "LpPool"])
@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel_shape": [3, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "dilations": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1, "ceil_mode": 1},
    ],
    ids=str,
)
def test_poolings(op: str, attrs: dict[str, Any]) -> None:
    if "count_include_pad" in attrs and op != "AveragePool":
        pytest.skip("only an average counts")
    check_with_ort(one_node(op, {"x": IMAGE}, **attrs), {"x": IMAGE})


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_networks(op: str, direction: str) -> None:
    gates, both = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if direction == "bidirectional" else 1

    def draw(*shape: int) -> NDArray[np.float32]:
        return RNG.standard_normal(shape).astype(np.float32)

    feeds: dict[str, NDArray[Any]] = {
        "x": draw(5, 3, 4),
        "w": draw(both, gates * 6, 4),
        "r": draw(both, gates * 6, 6),
        "b": draw(both, 2 * gates * 6),
        "lengths": np.array([5, 2, 4], np.int32),
        "h": draw(both, 3, 6),
    }
    if op == "LSTM":
        feeds |= {"c": draw(both, 3, 6), "p": draw(both, 18)}
    extra = {"linear_before_reset": 1} if op == "GRU" else {}
    outputs = 3 if op == "LSTM" else 2
    check_with_ort(one_node(op, feeds, outputs, hidden_size=6, direction=direction, **extra), feeds)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
)
@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 0.6, 0.7), (1, 1, 1.3, 0.5)])
def test_resizing(mode: str, coordinates: str, scales: tuple[float, ...]) -> None:
    if (mode, coordinates) == ("nearest", "half_pixel_symmetric"):
        pytest.skip("which of two places is nearer hangs on the order of float32 operations, which no text says")
    feeds = {"x": IMAGE, "_roi": np.zeros(0, np.float32), "s": np.array(scales, np.float32)}
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check_with_ort(one_node("Resize", feeds, opset=19, **attrs), feeds)
    if mode != "nearest":
        check_with_ort(one_node("Resize", feeds, opset=19, antialias=1, **attrs), feeds)
    if mode == "cubic":
        check_with_ort(one_node("Resize", feeds, opset=19, exclude_outside=1, **attrs), feeds)


ACTIVATIONS = (
    "Abs", "Celu", "Elu", "Exp", "HardSigmoid", "LeakyRelu", "LogSoftmax", "Mish", "Relu", "Selu",
    "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh", "ThresholdedRelu", "ReduceL2", "ReduceLogSumExp",
    "ReduceMean", "GlobalAveragePool", "LpNormalization", "Floor", "Round", "Sin", "Neg",
)  # fmt: skip


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_it_is_float64_not_float32_behind_a_float64_face(op: str) -> None:
    x = RNG.standard_normal((2, 3, 4, 5))
    attrs = {"axis": -1, "p": 2} if op == "LpNormalization" else {}
    model = one_node(op, {"x": x}, opset=22, dtype=TensorProto.DOUBLE, **attrs)
    [want] = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(Evaluator(model).run({"x": x})["y0"], want, rtol=1e-12, atol=1e-13)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(specs())
def test_random_graphs_mean_what_they_naively_mean(spec: Spec) -> None:
    got = Evaluator(to_onnx(spec)).run(spec.feeds)
    largest = max(float(np.abs(value).max()) for value in spec.values.values())
    for name in spec.outputs:
        np.testing.assert_allclose(got[name], spec.values[name], rtol=1e-12, atol=1e-12 * largest)


def test_functions_are_inlined_and_the_model_is_not_changed() -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["b"])]
    function = helper.make_function("own", "Square", ["a"], ["b"], body, [helper.make_opsetid("", 21)])
    model = one_node("Square", {"x": IMAGE}, domain="own")
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    opened = ir.from_proto(model)
    np.testing.assert_array_equal(Evaluator(opened).run({"x": IMAGE})["y0"], IMAGE.astype(np.float64) ** 2)
    assert len(opened.functions) == 1


def test_a_cast_to_a_narrower_float_does_nothing_and_is_said() -> None:
    model = one_node("Cast", {"x": IMAGE}, to=TensorProto.FLOAT16)
    run = Evaluator(model)
    np.testing.assert_array_equal(run.run({"x": IMAGE})["y0"], IMAGE)
    assert run.notes == ("1 Cast to a narrower float was not rounded in float64",)
    assert Evaluator(one_node("Cast", {"x": IMAGE}, to=TensorProto.DOUBLE)).notes == ()


def test_values_are_freed_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"v{index}" for index in range(6)]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in zip(["x", *names], names, strict=False)]
    model = one_node("Relu", {"x": IMAGE})
    del model.graph.node[:]
    model.graph.node.extend([*nodes, helper.make_node("Add", ["v5", "v0"], ["y0"])])
    alive: list[int] = []
    original = Evaluator._graph

    def watched(self: Evaluator, graph: Any, values: Any, watch: Any = None) -> Any:
        return original(self, graph, values, lambda node, results: alive.append(len(values)))

    monkeypatch.setattr(Evaluator, "_graph", watched)
    Evaluator(model).run({"x": IMAGE})
    assert max(alive) == 3  # an operand, its result, and v0


def test_what_has_no_float64_meaning_is_refused() -> None:
    with pytest.raises(UnsupportedError) as refused:
        Evaluator(one_node("Fancy", {"x": IMAGE}, domain="own")).run({"x": IMAGE})
    assert refused.value.what.startswith("Fancy 'node' of the model does not run in float64: ")
    assert refused.value.hint == "Check the model with another runtime, or verify with --verify quick."
    shape = np.array([2], np.int64)
    with pytest.raises(UnsupportedError) as refused:
        Evaluator(one_node("RandomNormalLike", {"x": shape})).run({"x": shape})
    assert refused.value.what == "RandomNormalLike 'node' of the model draws random numbers, so that no two runs agree"
    assert refused.value.hint == "Replace it by an input of the model."


def test_a_missing_input_is_named() -> None:
    with pytest.raises(UsageError) as refused:
        Evaluator(one_node("Relu", {"x": IMAGE})).run({})
    assert (refused.value.what, refused.value.hint) == ("input 'x' of the model is missing", "Pass it by its name.")


def test_what_readers_know_runs_in_torch() -> None:
    from bnfold.frontends.readers import READERS

    assert set(READERS) - set(OPERATORS) == {"MaxRoiPool", "RoiAlign"}


def test_the_reference_is_asked_where_torch_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        evaluator, "by_reference", lambda node, *rest: asked.append(node.op_type) or (torch.zeros(1),) * 2
    )
    x = np.zeros((1, 1, 3, 3), np.float32)
    Evaluator(one_node("MaxPool", {"x": x}, 2, kernel_shape=[2, 2])).run({"x": x})
    Evaluator(one_node("MaxPool", {"x": x}, kernel_shape=[2, 2])).run({"x": x})
    assert asked == ["MaxPool"]
