"""A model that makes 40 GB when it runs: the process it runs in may have 3."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import helper
from stage import Attack


def test_memory_at_run_time(attack: Attack) -> None:
    nodes = [
        ho.constant(np.array([10**5, 10**5]), "shape"),
        helper.make_node("Identity", ["shape"], ["same"]),
        helper.make_node("ConstantOfShape", ["same"], ["c"]),
        helper.make_node("ReduceMax", ["c"], ["m"], keepdims=0),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    attack.write("model.onnx", ho.model(nodes))
    attack.limited(
        "bench",
        "model.onnx",
        "--max-memory",
        "3GB",
        says=("error[LIMIT]: it needs more than 3000000000 bytes of memory\nGive it more: --max-memory SIZE.\n"),
    )
