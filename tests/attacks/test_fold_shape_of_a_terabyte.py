"""A ConstantOfShape of 10**12 numbers, which constant folding must not compute."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_shape_of_a_terabyte(attack: Attack) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    attack.write("model.onnx", ho.model(nodes, weights={"shape": np.array([10**6, 10**6])}))
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
