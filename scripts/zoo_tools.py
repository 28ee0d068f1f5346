"""The tools that the zoo compares: serialized model in, serialized model out, each with its own defaults."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def by_onnxsim(data: bytes) -> bytes:
    """Onnxsim, with its own check against the original left out, as it is by default."""
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load_from_string(data))
    return simplified.SerializeToString()


def by_onnxslim(data: bytes) -> bytes:
    """Onnxslim."""
    import onnxslim

    slimmed = onnxslim.slim(onnx.load_from_string(data))
    return slimmed.SerializeToString()


def by_onnxruntime(data: bytes) -> bytes:
    """Onnxruntime's basic rewriting, which does not depend on the machine it runs on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


def by_bnfold(data: bytes) -> bytes:
    """Bnfold, as its Python function."""
    import bnfold

    folded: onnx.ModelProto = bnfold.fold(onnx.load_from_string(data)).model
    return folded.SerializeToString()


TOOLS: dict[str, Callable[[bytes], bytes]] = {
    "onnxsim": by_onnxsim,
    "onnxslim": by_onnxslim,
    "onnxruntime": by_onnxruntime,
    "bnfold": by_bnfold,
}


def warm_up(tool: str) -> None:
    """One call on a Conv and its BatchNorm, so that what a tool imports and allocates once is not measured."""
    ones = np.ones(1, dtype=np.float32)
    weights = {"w": np.ones((1, 1, 1, 1), dtype=np.float32)} | dict.fromkeys(("g", "b", "m", "v"), ones)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in ("x", "y"))
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "warm_up", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    TOOLS[tool](model.SerializeToString())
