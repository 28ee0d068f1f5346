"""External data above the folder, in an attribute that is a list of tensors."""

from __future__ import annotations

import hostile_onnx as ho
import onnx
from onnx import helper
from stage import Attack


def test_external_in_a_list_of_tensors(attack: Attack) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    node.attribute.add(name="list", type=onnx.AttributeProto.TENSORS).tensors.append(ho.external("../secret"))
    attack.write("model.onnx", ho.model([node]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
