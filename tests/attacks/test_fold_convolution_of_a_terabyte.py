"""A Conv of constants whose padding asks for 10**12 numbers."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_fold_convolution_of_a_terabyte(attack: Attack) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["c"], pads=[10**6] * 4),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    attack.write(
        "model.onnx",
        ho.model(
            nodes, weights={"image": np.ones((1, 1, 2, 2), np.float32), "kernel": np.ones((1, 1, 1, 1), np.float32)}
        ),
    )
    out, _ = attack.accepted("inspect", "model.onnx")
    assert out.startswith("0 BatchNorms: nothing to fold")
