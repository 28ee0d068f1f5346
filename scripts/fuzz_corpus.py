"""The sound files that `fuzz.py` breaks: one or more of every format, small, and the command line that opens each."""

from __future__ import annotations

import io
import sys
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import tiny

from bnfold.loading.weights import STATE
from bnfold.pipeline.folding import fold
from bnfold.recipes.folded import folded_state
from bnfold.recipes.recipe import KEY, PREFIX

ARCH = """
from collections import OrderedDict
from torch import nn

def net():
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2), act=nn.ReLU()))
"""
WITH_ARCH = ("--arch", "nets.py:net", "--input", "1x1x6x6")


@dataclass(frozen=True)
class Seed:
    """A sound file.

    Attributes:
        kind: Its format.
        name: What it is called.
        files: Its bytes, and those of what belongs to it, by name; the first is broken, others sometimes.
        arguments: What the command line needs besides its name.
    """

    kind: str
    name: str
    files: dict[str, bytes]
    arguments: tuple[str, ...] = ()


def seeds() -> list[Seed]:
    """One or more of every format."""
    net = network()
    state = net.state_dict()
    dense = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    return [
        _onnx("ONNX", tiny.conv_bn()),
        _onnx("ONNX", tiny.bn_relu(batch=2)),
        _onnx("ONNX", _control_flow()),
        _onnx("ONNX", _functions()),
        Seed("ONNX with external data", "m.onnx", {"m.onnx": _external(dense), "w.data": bytes(range(24))}),
        _saved("state dict", state, WITH_ARCH),
        _saved(
            "state dict",
            {"model": state, "epoch": 3, "optimizer": {"lr": 0.1, "seen": (1, 2.5, "a", b"b", None)}},
            WITH_ARCH,
        ),
        _saved("pickled module", net, ("--input", "1x1x6x6")),
        Seed("safetensors", "m.safetensors", {"m.safetensors": _safetensors(dict(state), None)}, WITH_ARCH),
        Seed("folded safetensors", "m.safetensors", {"m.safetensors": _folded(net)}, WITH_ARCH),
        Seed("TorchScript", "m.pt", {"m.pt": _script(net)}),
        Seed(".pt2", "m.pt2", {"m.pt2": _program(net)}),
        Seed(
            "input data",
            "m.onnx",
            {"x.npz": _arrays(), "m.onnx": tiny.conv_bn().SerializeToString()},
            ("--input-data", "x.npz"),
        ),
    ]


def network() -> nn.Sequential:
    """What `nets.py` builds, with statistics of its own."""
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2), act=nn.ReLU()))
    with torch.no_grad():
        net(torch.randn(8, 1, 6, 6))
    return net.eval()


def _onnx(kind: str, model: onnx.ModelProto) -> Seed:
    return Seed(kind, "m.onnx", {"m.onnx": model.SerializeToString()})


def _saved(kind: str, content: object, arguments: tuple[str, ...]) -> Seed:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return Seed(kind, "m.pt", {"m.pt": buffer.getvalue()}, arguments)


def _external(node: onnx.NodeProto) -> bytes:
    model = tiny.model([node], {"w": np.zeros((2, 3), np.float32)}, shape=["N", 2], out_shape=["N", 3])
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.data"), ("offset", "0"), ("length", "24")):
        weight.external_data.add(key=key, value=value)
    return model.SerializeToString()


def _control_flow() -> onnx.ModelProto:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 3, 6, 6])
    bodies = [helper.make_graph([helper.make_node(op, ["x"], ["r"])], op, [], [result]) for op in ("Relu", "Tanh")]
    nodes = [
        helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True), "f")),
        helper.make_node("If", ["flag"], ["t"], then_branch=bodies[0], else_branch=bodies[1]),
        helper.make_node("Expand", ["one", "shape"], ["ones"]),
        helper.make_node("Mul", ["t", "ones"], ["y"]),
    ]
    weights = {"one": np.ones((1, 1, 1), np.float32), "shape": np.array([3, 6, 6])}
    return tiny.model(nodes, weights, shape=["N", 3, 6, 6], out_shape=["N", 3, 6, 6])


def _functions() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Add", ["t", "a"], ["b"])]
    function = helper.make_function("own", "F", ["a"], ["b"], body, opsets)
    model = tiny.model([helper.make_node("Relu", ["x"], ["y"])], {}, shape=["N", 3], out_shape=["N", 3])
    model.graph.node[0].CopyFrom(helper.make_node("F", ["x"], ["y"], domain="own"))
    model.functions.append(function)
    model.opset_import.append(opsets[1])
    return model


def _safetensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> bytes:
    import safetensors.torch

    data: bytes = safetensors.torch.save({key: value.clone() for key, value in tensors.items()}, metadata)
    return data


def _folded(net: nn.Module) -> bytes:
    after = fold(net, torch.ones(1, 1, 6, 6))
    state = folded_state(net, after.model, sha256="0" * 64, version="0")
    return _safetensors(
        {PREFIX + key: value for key, value in state.tensors.items()}, {KEY: state.recipe.to_json(), "of": STATE}
    )


def _script(net: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(net), buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _program(net: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.save(torch.export.export(net, (torch.ones(1, 1, 6, 6),)), buffer)
    return buffer.getvalue()


def _arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.ones((2, 3, 6, 6), np.float32))
    return buffer.getvalue()
