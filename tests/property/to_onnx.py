"""A `Spec` as an ONNX model (float64)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .naive import Array
from .spec import BATCH, Spec, Step

CONST_OPS = {"mul": "Mul", "add": "Add", "sub": "Sub", "div": "Div"}
SIMPLE_OPS = {
    "relu": "Relu",
    "abs": "Abs",
    "global_average_pool": "GlobalAveragePool",
    "identity": "Identity",
    "add": "Add",
    "sub": "Sub",
    "max": "Max",
    "gate": "Mul",
    "flatten": "Flatten",
}


def to_onnx(spec: Spec) -> onnx.ModelProto:
    """The model; initializers are called `STEP.CONSTANT`, nodes `STEP`."""
    owner = {(index, key): f"{other}.{key}" for index, key, other in spec.shared}
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, Array | np.ndarray[Any, Any]] = {}
    for index, step in enumerate(spec.steps):
        names = {key: owner.get((index, key), f"{index}.{key}") for key in step.consts}
        tensors.update({names[key]: value for key, value in step.consts.items() if (index, key) not in owner})
        extra: dict[str, np.ndarray[Any, Any]] = {}
        nodes.append(_node(step, names, extra, f"{index}"))
        tensors.update(extra)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [_batch(spec, name), *spec.values[name].shape[1:]])
        for name in spec.inputs
    ]
    inputs += [
        helper.make_tensor_value_info(f"{index}.{key}", TensorProto.DOUBLE, spec.steps[index].consts[key].shape)
        for index, key in spec.overridable
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [f"{name}_n", *spec.values[name].shape[1:]])
        for name in spec.outputs
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "random", inputs, outputs, initializers)
    opset = helper.make_opsetid("", spec.options.get("opset", 18))
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    return onnx.shape_inference.infer_shapes(model) if spec.options.get("value_info") else model


def _batch(spec: Spec, name: str) -> int | str:
    """The first dimension of a graph input."""
    size = spec.values[name].shape[0]
    if spec.options.get("static_batch"):
        return size
    return "N" if size == BATCH else f"{name}_n"


def _node(step: Step, names: Mapping[str, str], extra: dict[str, np.ndarray[Any, Any]], name: str) -> onnx.NodeProto:
    op, inputs, attrs = _translate(step, names, extra, name)
    return helper.make_node(op, inputs, list(step.writes), name=name, **attrs)


def _translate(
    step: Step, names: Mapping[str, str], extra: dict[str, np.ndarray[Any, Any]], name: str
) -> tuple[str, list[str], dict[str, Any]]:
    """ONNX operator, input names and attributes; integer operands go to `extra`."""

    def ints(key: str, values: Any) -> str:
        extra[f"{name}.{key}"] = np.asarray(values, np.int64)
        return f"{name}.{key}"

    reads, a = list(step.reads), step.attrs
    if step.op in SIMPLE_OPS:
        return SIMPLE_OPS[step.op], reads, {}
    if step.op in ("conv", "conv_transpose"):
        attrs = {"kernel_shape": a["kernel"], "strides": a["strides"], "pads": a["pads"], "group": a["groups"]}
        attrs |= {"dilations": a["dilations"]} if step.op == "conv" else {"output_padding": a["output_padding"]}
        operands = [*reads, names["weight"], *([names["bias"]] if "bias" in names else [])]
        return "Conv" if step.op == "conv" else "ConvTranspose", operands, attrs
    if step.op == "bn":
        operands = [*reads, *(names[key] for key in ("gamma", "beta", "mean", "var"))]
        return "BatchNormalization", operands, {"epsilon": a["epsilon"]}
    if step.op in ("const", "table"):
        operands = [*reads, names["value"]]
        return CONST_OPS[a["kind"]], operands[::-1] if a["reverse"] else operands, {}
    if step.op == "gemm":
        operands = [*reads, names["weight"], *([names["bias"]] if "bias" in names else [])]
        return "Gemm", operands, {"alpha": a["alpha"], "beta": a["beta"], "transB": int(a["transB"])}
    if step.op == "matmul":
        return "MatMul", [*reads, names["weight"]], {}
    if step.op == "leaky_relu":
        return "LeakyRelu", reads, {"alpha": a["alpha"]}
    if step.op == "prelu":
        return "PRelu", [*reads, names["slope"]], {}
    if step.op == "rigid":
        return _rigid(a["kind"], reads, extra, name)
    if step.op in ("max_pool", "average_pool"):
        attrs = {"kernel_shape": a["kernel"], "strides": a["strides"], "pads": a["pads"]}
        attrs |= {"count_include_pad": int(a["count_include_pad"])} if step.op == "average_pool" else {}
        return "MaxPool" if step.op == "max_pool" else "AveragePool", reads, attrs
    if step.op == "resize":
        extra[f"{name}.scales"] = np.array([1, 1, 2, 2], np.float32)
        attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return "Resize", [*reads, "", f"{name}.scales"], attrs
    if step.op == "pad":
        top, left, bottom, right = a["pads"]
        return "Pad", [*reads, ints("pads", [0, 0, top, left, 0, 0, bottom, right])], {"mode": a["mode"]}
    if step.op == "concat":
        return "Concat", [*reads, *([names["value"]] if "value" in names else [])], {"axis": a["axis"]}
    if step.op == "split":
        return "Split", [*reads, ints("split", a["sizes"])], {"axis": a["axis"]}
    if step.op == "gather":
        return "Gather", [*reads, ints("indices", a["indices"])], {"axis": 1}
    if step.op == "reshape":
        return "Reshape", [*reads, ints("shape", a["shape"])], {}
    if step.op == "transpose":
        return "Transpose", reads, {"perm": a["perm"]}
    raise AssertionError(f"no ONNX operator for {step.op}")


def _rigid(
    kind: str, reads: list[str], extra: dict[str, np.ndarray[Any, Any]], name: str
) -> tuple[str, list[str], dict[str, Any]]:
    if kind == "Clip":
        extra[f"{name}.low"], extra[f"{name}.high"] = np.array(-0.5), np.array(0.5)
        return "Clip", [*reads, f"{name}.low", f"{name}.high"], {}
    return kind, reads, {"axis": 1} if kind == "Softmax" else {}
