"""Tiny ONNX models for the tests: a Conv with its BatchNorm, the same folded by hand, and variations that are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EPSILON = 1e-5


def conv_bn(*, batch: int | str = "N", channels: int = 4, name: str = "bn", seed: int = 0) -> onnx.ModelProto:
    """x[N, 3, 6, 6] → Conv 3×3 → BatchNormalization → Relu → y."""
    weights = parameters(channels, seed)
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["conv_out"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["conv_out", "gamma", "beta", "mean", "var"], ["bn_out"], name=name, epsilon=EPSILON
        ),
        helper.make_node("Relu", ["bn_out"], ["y"], name="relu"),
    ]
    return model(nodes, weights, shape=(batch, 3, 6, 6), out_shape=(batch, channels, 6, 6))


def folded(*, batch: int | str = "N", channels: int = 4, seed: int = 0, off_by: float = 0.0) -> onnx.ModelProto:
    """The same function as `conv_bn` without its BatchNormalization; one weight is `off_by` too large."""
    wide = {name: value.astype(np.float64) for name, value in parameters(channels, seed).items()}
    scale = wide["gamma"] / np.sqrt(wide["var"] + EPSILON)
    weight = wide["weight"] * scale[:, None, None, None]
    weight[0, 0, 1, 1] += off_by
    weights = {"weight": weight, "bias": (wide["bias"] - wide["mean"]) * scale + wide["beta"]}
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["conv_out"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv_out"], ["y"], name="relu"),
    ]
    rounded = {name: value.astype(np.float32) for name, value in weights.items()}
    return model(nodes, rounded, shape=(batch, 3, 6, 6), out_shape=(batch, channels, 6, 6))


def bn_relu(*, batch: int | str = "N") -> onnx.ModelProto:
    """x → BatchNormalization → Relu → y: nothing can absorb the BatchNormalization, in bnfold or onnxruntime."""
    weights = {name: parameters(3, 0)[name] for name in ("gamma", "beta", "mean", "var")}
    nodes = [
        helper.make_node("BatchNormalization", ["x", "gamma", "beta", "mean", "var"], ["bn_out"], name="bn"),
        helper.make_node("Sigmoid", ["bn_out"], ["y"], name="sigmoid"),
    ]
    return model(nodes, weights, shape=(batch, 3, 6, 6), out_shape=(batch, 3, 6, 6))


def parameters(channels: int, seed: int) -> dict[str, np.ndarray]:
    """Random weights of `conv_bn`, float32."""
    rng = np.random.default_rng(seed)
    drawn = {
        "weight": rng.standard_normal((channels, 3, 3, 3)) / 5,
        "bias": rng.standard_normal(channels),
        "gamma": rng.uniform(0.5, 2, channels),
        "beta": rng.standard_normal(channels),
        "mean": rng.standard_normal(channels),
        "var": rng.uniform(0.5, 2, channels),
    }
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    shape: Sequence[int | str],
    out_shape: Sequence[int | str] | None = None,
    out_type: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A checked model with one float input `x`."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, out_type, out_shape) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    return made
