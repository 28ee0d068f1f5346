"""External data above the folder, in what an attribute of a function defaults to."""

from __future__ import annotations

import hostile_onnx as ho
import onnx
from onnx import helper
from stage import Attack


def test_external_in_a_function_default(attack: Attack) -> None:
    function = ho.function("F", helper.make_node("Relu", ["a"], ["b"]))
    function.attribute_proto.add(name="t", type=onnx.AttributeProto.TENSOR).t.CopyFrom(ho.external("../secret"))
    attack.write("model.onnx", ho.model([helper.make_node("F", ["x"], ["y"], domain="own")], functions=[function]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
