"""External data above the folder, in the values of a sparse constant."""

from __future__ import annotations

import hostile_onnx as ho
import onnx
from onnx import helper
from stage import Attack


def test_external_in_a_sparse_attribute(attack: Attack) -> None:
    node = helper.make_node("Constant", [], ["c"])
    held = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor
    held.values.CopyFrom(ho.external("../secret", "s"))
    attack.write("model.onnx", ho.model([node, helper.make_node("MatMul", ["x", "c"], ["y"])]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
