"""A Gather that takes a long row a hundred thousand times."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_gather_of_a_terabyte(attack: Attack) -> None:
    nodes = [
        helper.make_node("Gather", ["row", "zeros"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    attack.write(
        "model.onnx",
        ho.model(nodes, weights={"row": np.ones((1, 10**5), np.float32), "zeros": np.zeros(10**5, np.int64)}),
    )
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
