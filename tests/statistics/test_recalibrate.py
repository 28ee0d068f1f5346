"""Statistics of data: what a BatchNorm sees, drift from it, and new statistics, each against its definition."""

from __future__ import annotations

import copy
import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny
import torch
from onnx import TensorProto, helper, numpy_helper

from bnfold.data.datasets import open_dataset
from bnfold.errors import UnsupportedError, UsageError
from bnfold.loading.load import load
from bnfold.running.runners import OrtRunner, runnable
from bnfold.statistics.drift import NOISE, TOLERANCE, drift
from bnfold.statistics.normstats import find_norms
from bnfold.statistics.recalibrate import recalibrate
from bnfold.tracing.capture import capture

EPS = 1e-5


def two_layers(*, opset: int = 17, batch: int | str = "N", dtype: type = np.float32) -> onnx.ModelProto:
    """x[N, 4] → Gemm → bn0 → Relu → Gemm → bn1, and bn2 beside bn0."""
    rng = np.random.default_rng(0)
    weights = {"w0": rng.standard_normal((4, 6)), "w1": rng.standard_normal((6, 3)), "w2": rng.standard_normal((4, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("BatchNormalization", ["h", *stats(weights, "bn0", 6, rng)], ["a"], name="bn0", epsilon=EPS),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["g"]),
        helper.make_node("BatchNormalization", ["g", *stats(weights, "bn1", 3, rng)], ["b"], name="bn1", epsilon=EPS),
        helper.make_node("MatMul", ["x", "w2"], ["f"]),
        helper.make_node("BatchNormalization", ["f", *stats(weights, "bn2", 3, rng)], ["c"], name="bn2", epsilon=EPS),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", kind, (batch, 4))],
        [helper.make_tensor_value_info("y", kind, (batch, 3))],
        [numpy_helper.from_array(np.asarray(value, dtype), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def stats(weights: dict[str, np.ndarray], name: str, channels: int, rng: np.random.Generator) -> list[str]:
    weights[f"{name}_gamma"] = rng.uniform(0.5, 2, channels)
    weights[f"{name}_beta"] = rng.standard_normal(channels)
    weights[f"{name}_mean"] = rng.standard_normal(channels)
    weights[f"{name}_var"] = rng.uniform(0.5, 2, channels)
    return [f"{name}_{part}" for part in ("gamma", "beta", "mean", "var")]


def constants(model: ir.Model, norm: str) -> tuple[np.ndarray, np.ndarray]:
    [node] = [node for node in model.graph if node.name == norm]
    mean, var = (value.const_value.numpy() for value in node.inputs[3:5])  # type: ignore[union-attr]
    return mean, var


def naive(x: np.ndarray, w: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer by layer over the whole set, in float64."""
    h, f = x @ w["w0"], x @ w["w2"]
    a = w["bn0_gamma"] * (h - h.mean(0)) / np.sqrt(h.var(0) + EPS) + w["bn0_beta"]
    g = np.maximum(a, 0) @ w["w1"]
    return {"bn0": (h.mean(0), h.var(0)), "bn1": (g.mean(0), g.var(0)), "bn2": (f.mean(0), f.var(0))}


X = (np.random.default_rng(5).standard_normal((100, 4)) * 3 + 1).astype(np.float32)
X.setflags(write=False)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize(("batch", "rows"), [("N", 100), ("N", 7), ("N", 1), (1, 10), (8, 100)])
def test_every_layer_gets_the_statistics_it_sees_whatever_the_batch(opset: int, batch: int | str, rows: int) -> None:
    model = ir.from_proto(two_layers(opset=opset, batch=batch))
    kept = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    renewed, found = recalibrate(model, open_dataset([X[i : i + rows] for i in range(0, 100, rows)]))
    wide = {name: value.astype(np.float64) for name, value in kept.items()}
    for norm, (mean, var) in naive(X.astype(np.float64), wide).items():
        got = constants(renewed, norm)
        assert got[0] == pytest.approx(mean, rel=2e-5, abs=2e-6)
        assert got[1] == pytest.approx(var, rel=2e-5)
    assert (found.n, found.passes, len(found.layers)) == (100, 2, 3)
    for name, value in model.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), kept[name])  # type: ignore[union-attr]
    assert len(renewed.graph.initializers) == len(model.graph.initializers)


def test_afterwards_the_network_is_what_training_mode_makes_of_the_whole_set() -> None:
    """In training mode a BatchNorm normalises with its batch: the new statistics, where that is the whole set."""
    loaded = load("models/resnet.pt", arch="models/architectures.py:resnet")
    unfolded = capture(loaded).model
    x = 0.3 * np.load("models/digits_test.npz")["x"][:120] + 0.6
    renewed, found = recalibrate(unfolded, open_dataset([x[:50], x[50:]]))
    network = copy.deepcopy(loaded.model).train().double()
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    expected = network(torch.from_numpy(x).double()).detach().numpy()
    with runnable(renewed) as file:
        [got] = OrtRunner(file, optimize=False).run({unfolded.graph.inputs[0].name: x.astype(np.float32)}).values()
    np.testing.assert_allclose(got, expected, atol=2e-4)
    assert found.passes == 9
    assert drift(renewed, open_dataset([x])).worst < 1e-3


def test_float16_statistics_are_rounded_once_and_refused_where_they_overflow() -> None:
    half = ir.from_proto(two_layers(dtype=np.float16))
    x = X.astype(np.float16)
    renewed, _ = recalibrate(half, open_dataset([x]))
    mean, var = constants(renewed, "bn2")
    assert mean.dtype == np.float16
    f = x.astype(np.float64) @ half.graph.initializers["w2"].const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    assert mean.astype(np.float64) == pytest.approx(f.mean(0), rel=2e-3, abs=2e-3)
    assert var.astype(np.float64) == pytest.approx(f.var(0), rel=4e-3)
    with pytest.raises(UnsupportedError, match="of BatchNorm 'bn0' over the data does not fit FLOAT16"):
        recalibrate(half, open_dataset([x * np.float16(200)]))


def test_a_constant_channel_is_said() -> None:
    _, found = recalibrate(ir.from_proto(two_layers()), open_dataset([np.ones((5, 4), np.float32)]))
    assert found.notes == (
        "some channels of 3 BatchNorms, 'bn0' first are constant over the data; their variance is 0 now",
    )


def test_one_row_has_no_variance() -> None:
    with pytest.raises(UsageError) as caught:
        recalibrate(ir.from_proto(two_layers()), open_dataset([X[:1]]))
    assert caught.value.what == "the loader gives BatchNorm 'bn0' a single value per channel, which has no variance"


def test_norms_that_train_or_take_their_statistics_from_inputs_are_left() -> None:
    made = two_layers()
    made.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    made.graph.input.append(helper.make_tensor_value_info("bn2_mean", TensorProto.FLOAT, (3,)))
    norms, notes = find_norms(ir.from_proto(made))
    assert [(norm.name, norm.depth) for norm in norms] == [("bn1", 0)]
    assert notes == ("2 BatchNorms compute their statistics from the batch or from inputs and are left as they are",)


def test_a_model_without_batch_norms() -> None:
    model = ir.from_proto(tiny.folded())
    data = open_dataset([np.ones((2, 3, 6, 6), np.float32)])
    with pytest.raises(UnsupportedError, match="the model has no BatchNorm whose statistics could be compared"):
        drift(model, data)
    with pytest.raises(UnsupportedError, match="the model has no BatchNorm to recalibrate"):
        recalibrate(model, data)


def test_drift_is_its_definition_and_the_worst_comes_first() -> None:
    made = tiny.conv_bn()
    x = np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)
    found = drift(ir.from_proto(made), open_dataset([x[:40], x[40:]]))
    w = {name: torch.from_numpy(value).double() for name, value in tiny.parameters(4, 0).items()}
    h = torch.nn.functional.conv2d(torch.from_numpy(x).double(), w["weight"], w["bias"], padding=1)
    stored = w["var"] + tiny.EPSILON
    shift = (h.mean((0, 2, 3)) - w["mean"]).abs() / stored.sqrt()
    spread = ((h.var((0, 2, 3), correction=0) + tiny.EPSILON) / stored).log().abs() / 2
    both = torch.maximum(shift, spread)
    [layer] = found.layers
    assert layer.name == "bn"
    assert layer.mean_shift == pytest.approx(float((shift**2).mean().sqrt()), rel=1e-5)
    assert layer.spread == pytest.approx(float((spread**2).mean().sqrt()), rel=1e-5)
    assert layer.drift == pytest.approx(float((both**2).mean().sqrt()), rel=1e-5)
    assert (layer.worst_channel, layer.worst) == (int(both.argmax()), pytest.approx(float(both.max()), rel=1e-5))
    assert found.limit == pytest.approx((TOLERANCE**2 + NOISE**2 / 64) ** 0.5)
    assert found.drifted == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_stored_statistics_that_are_no_numbers_have_drifted_without_end(wrong: float) -> None:
    made = tiny.conv_bn()
    [var] = [value for value in made.graph.initializer if value.name == "var"]
    values = numpy_helper.to_array(var).copy()
    values[2] = wrong
    var.CopyFrom(numpy_helper.from_array(values, "var"))
    found = drift(ir.from_proto(made), open_dataset([np.ones((5, 3, 6, 6), np.float32)]))
    assert (found.worst, found.layers[0].worst_channel, found.drifted) == (np.inf, 2, 1)
    assert found.to_dict()["worst"] is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["layers"][0]["drift"] is None


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_held_out_digits_pass_and_shifted_ones_do_not(name: str) -> None:
    unfolded = capture(load(f"models/{name}.pt", arch=f"models/architectures.py:{name}")).model
    x = np.load("models/digits_test.npz")["x"]
    noise = np.random.default_rng(0).normal(0, 0.25, x.shape)
    assert drift(unfolded, open_dataset([x])).drifted == 0
    for shifted in (1 - x, x + noise, 0.25 * x, 4 * x):
        assert drift(unfolded, open_dataset([shifted.astype(np.float32)])).drifted > 0
