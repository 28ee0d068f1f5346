"""External data above the folder, in a function."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_external_in_a_function(attack: Attack) -> None:
    node = ho.constant(ho.NUMBERS, "c")
    node.attribute[0].t.CopyFrom(ho.external("../secret"))
    function = ho.function("F", node, helper.make_node("MatMul", ["a", "c"], ["b"]))
    attack.write("model.onnx", ho.model([helper.make_node("F", ["x"], ["y"], domain="own")], functions=[function]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
