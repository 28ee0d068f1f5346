"""External data above the folder, in a branch of an If."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_external_in_a_body(attack: Attack) -> None:
    inner = ho.body(helper.make_node("MatMul", ["x", "v"], ["r"]), initializers=[ho.external("../secret", "v")])
    attack.write("model.onnx", ho.model(ho.branches(inner)))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
