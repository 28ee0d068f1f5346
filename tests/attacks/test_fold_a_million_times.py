"""Two hundred constants of 10**6 numbers from one: more work than a model this size may ask for."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_a_million_times(attack: Attack) -> None:
    nodes = [
        helper.make_node("Expand", ["w1", "shape"], ["t0"]),
        *(helper.make_node("Sin", [f"t{n}"], [f"t{n + 1}"]) for n in range(200)),
        helper.make_node("ReduceMax", ["t200"], ["m"], keepdims=0),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    attack.write(
        "model.onnx", ho.model(nodes, weights={"w1": np.ones((1, 1), np.float32), "shape": np.array([1000, 1000])})
    )
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
