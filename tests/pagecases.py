"""Runs to make pages of: real ones, and a model of 500 nodes whose names are as hostile as names can be."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.pipeline import line as pipeline

ROOT = Path(__file__).resolve().parent.parent

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "<!--",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "'; DROP TABLE bn; --",
    "a\u202eb\u2066c",
    "\x1b[31mred\x1b[0m",
    "line\u2028separator\r\nand more",
    "| pipe `tick` **bold** [link](https://example.com) @somebody",
    "]]> & &amp; &#60;",
    "x" * 3000,
)

CHANNELS = 4


def wide_net(nodes: int = 500) -> onnx.ModelProto:
    """Residual blocks of Conv, BatchNorm, ReLU and Add in stages, every thirteenth block with hostile names.

    A Sigmoid behind every fourth block keeps the BatchNorm before it.
    """
    rng = np.random.default_rng(0)
    made: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    x, block = "x", 0

    def norm(source: str, name: str) -> str:
        numbers = {
            "gamma": rng.uniform(0.5, 2, CHANNELS),
            "beta": rng.standard_normal(CHANNELS),
            "mean": rng.standard_normal(CHANNELS),
            "var": rng.uniform(0.5, 2, CHANNELS),
        }
        names = [f"{name}:{key}" for key in numbers]
        weights.update(zip(names, (value.astype(np.float32) for value in numbers.values()), strict=True))
        made.append(helper.make_node("BatchNormalization", [source, *names], [f"{name}:y"], name=name))
        return f"{name}:y"

    def conv(source: str, name: str) -> str:
        weights[f"{name}:w"] = (rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 6).astype(np.float32)
        made.append(helper.make_node("Conv", [source, f"{name}:w"], [f"{name}:y"], name=name, pads=[1] * 4))
        return f"{name}:y"

    def plain(op: str, inputs: list[str], name: str) -> str:
        made.append(helper.make_node(op, inputs, [f"{name}:y"], name=name))
        return f"{name}:y"

    while len(made) + 8 <= nodes:
        at = f"stage{block // 12}.block{block}"
        odd = HOSTILE[block // 4 % len(HOSTILE)] if block % 4 == 1 else ""
        inner = norm(x, f"{at}.{odd or 'bn0'}{'.bn0' if odd else ''}")
        inner = plain("Relu", [inner], f"{at}.relu0")
        inner = conv(inner, f"{at}.conv1")
        inner = norm(inner, f"{at}.bn1")
        inner = plain("Relu", [inner], f"{at}.relu1")
        inner = conv(inner, f"{at}.conv2")
        x = plain("Add", [x, inner], f"{at}.add")
        if block % 4 == 3:
            x = plain("Sigmoid", [norm(x, f"{at}.bn2")], f"{at}.act")
        block += 1
    while len(made) < nodes - 1:
        x = plain("Relu", [x], f"tail.relu{len(made)}")
    made.append(helper.make_node("Identity", [x], ["y"], name="out"))
    made[-1].op_type = "Relu"
    shape = ("N", CHANNELS, 6, 6)
    graph = helper.make_graph(
        made,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


MORE: dict[str, dict[str, Any]] = {  # together the models here have every section of a page
    "preact_resnet": {"verify": "full"},
    "repvgg": {"verify": "quick", "bench": True, "runtimes": ["ort"], "min_time": 0.1, "threads": 1},
    "densenet": {"verify": "quick", "data": f"{ROOT}/models/digits_test.npz"},
}


@cache
def run_of(name: str, folder: str) -> dict[str, Any]:
    """The run of a conversion, as `--json` writes it: of one of the models here, or of `wide` with hostile names."""
    out = f"{folder}/{name}.onnx"
    if name == "wide":
        source = f"{folder}/wide.source.onnx"
        onnx.save(wide_net(), source)
        report = pipeline.convert(source, out, picture=True, verify="quick")
    else:
        arch = f"{ROOT}/models/architectures.py:{name}"
        report = pipeline.convert(f"{ROOT}/models/{name}.pt", out, arch=arch, picture=True, **MORE[name])
    run: dict[str, Any] = json.loads(report.to_json())
    return run
