"""A tower of powers that overflows, computed in float64."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_powers_of_powers(attack: Attack) -> None:
    nodes = [
        *(helper.make_node("Pow", [f"t{n}", f"t{n}"], [f"t{n + 1}"]) for n in range(50)),
        helper.make_node("Add", ["x", "t50"], ["y"]),
    ]
    attack.write("model.onnx", ho.model(nodes, weights={"t0": np.full((1, 2), 9, np.float32)}))
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
