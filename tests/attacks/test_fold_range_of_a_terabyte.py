"""A Range of 10**12 numbers."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_range_of_a_terabyte(attack: Attack) -> None:
    nodes = [
        helper.make_node("Range", ["start", "limit", "delta"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    attack.write(
        "model.onnx",
        ho.model(nodes, weights={"start": np.float32(0), "limit": np.float32(1e12), "delta": np.float32(1)}),
    )
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
