"""An Expand to 10**12 numbers whose declared result has two."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_expand_that_lies(attack: Attack) -> None:
    nodes = [
        helper.make_node("Expand", ["w", "shape"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    attack.write("model.onnx", ho.model(nodes, weights={"shape": np.array([10**6, 10**6, 2, 3])}))
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
