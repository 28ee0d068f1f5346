"""Twenty Tiles, each of which makes a hundred of one."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_tiles_that_multiply(attack: Attack) -> None:
    nodes = [
        *(helper.make_node("Tile", [f"t{n}", "hundred"], [f"t{n + 1}"]) for n in range(20)),
        helper.make_node("Add", ["x", "t20"], ["y"]),
    ]
    attack.write(
        "model.onnx", ho.model(nodes, weights={"t0": np.ones((1, 2), np.float32), "hundred": np.array([100, 1])})
    )
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
