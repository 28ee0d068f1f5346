"""A Loop of 2**62 rounds: it ends when its time is over, with nothing written."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from onnx import TensorProto, helper
from stage import Attack


def test_loop_without_end(attack: Attack) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["r"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("r", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        ho.constant(np.array(2**62), "times"),
        ho.constant(np.array(True), "yes"),
        helper.make_node("Loop", ["times", "yes", "x"], ["y"], body=inner),
    ]
    attack.write("model.onnx", ho.model(nodes))
    attack.limited(
        "bench",
        "model.onnx",
        "--max-time",
        "6",
        says=("error[LIMIT]: it took longer than 6 seconds\nGive it more: --max-time SECONDS.\n"),
    )
