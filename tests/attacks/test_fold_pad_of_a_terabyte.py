"""A Pad of 10**12 numbers."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_pad_of_a_terabyte(attack: Attack) -> None:
    nodes = [helper.make_node("Pad", ["w", "pads"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    attack.write("model.onnx", ho.model(nodes, weights={"pads": np.array([0, 0, 10**6, 10**6])}))
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
