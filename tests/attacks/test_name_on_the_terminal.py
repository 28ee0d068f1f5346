"""The name of a BatchNorm holds escapes, bidirectional signs, markup and HTML: on the terminal, none of them acts."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from evil_names import EVIL, PLAIN
from onnx import helper
from stage import Attack


def test_name_on_the_terminal(attack: Attack) -> None:
    weights = {key: np.ones(3, np.float32) for key in ("s", "b", "m", "v")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Tanh", ["t"], ["u"]),
        helper.make_node("BatchNormalization", ["u", "s", "b", "m", "v"], ["z"], name=EVIL),
        helper.make_node("Tanh", ["z"], ["y"], name=EVIL),
    ]
    attack.write("model.onnx", ho.model(nodes, weights=weights))

    out, _ = attack.accepted("inspect", "model.onnx", "-v")
    assert PLAIN in out.replace("\n", "").replace(" ", "")
    assert all(char.isprintable() or char == "\n" for char in out)
