"""The same name in JSON: ASCII without a tag, and what it reads as is printable."""

from __future__ import annotations

import json

import hostile_onnx as ho
import numpy as np
from evil_names import EVIL, PLAIN
from onnx import helper
from stage import Attack


def test_name_in_json(attack: Attack) -> None:
    weights = {key: np.ones(3, np.float32) for key in ("s", "b", "m", "v")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Tanh", ["t"], ["u"]),
        helper.make_node("BatchNormalization", ["u", "s", "b", "m", "v"], ["z"], name=EVIL),
        helper.make_node("Tanh", ["z"], ["y"], name=EVIL),
    ]
    attack.write("model.onnx", ho.model(nodes, weights=weights))

    out, _ = attack.accepted("inspect", "model.onnx", "--json", "-")
    assert out.isascii()
    assert not set("<>&\x1b") & set(out)
    assert json.loads(out)["sites"][0]["name"] == PLAIN
