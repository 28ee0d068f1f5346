"""External data above the folder, in an attribute of an operator."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_external_in_an_attribute(attack: Attack) -> None:
    node = ho.constant(ho.NUMBERS, "c")
    node.attribute[0].t.CopyFrom(ho.external("../secret"))
    attack.write("model.onnx", ho.model([node, helper.make_node("MatMul", ["x", "c"], ["y"])]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
