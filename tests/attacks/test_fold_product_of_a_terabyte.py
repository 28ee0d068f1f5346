"""A MatMul of a column and a row: 10**10 numbers of two times 10**5."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_product_of_a_terabyte(attack: Attack) -> None:
    nodes = [
        helper.make_node("MatMul", ["column", "row"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    attack.write(
        "model.onnx",
        ho.model(nodes, weights={"row": np.ones((1, 10**5), np.float32), "column": np.ones((10**5, 1), np.float32)}),
    )
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
