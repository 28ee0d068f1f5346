"""An operator of a domain that only a library of its own knows: none is loaded, and the runtime refuses."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_operator_of_another_library(attack: Attack) -> None:
    attack.write("nets.so", b"\x7fELF")
    attack.write("model.onnx", ho.model([helper.make_node("Custom", ["x"], ["y"], domain="own", library="./nets.so")]))
    attack.refused(
        "convert",
        "model.onnx",
        code=4,
        says=(
            "error[UNSUPPORTED]: onnxruntime 1.32.0 does not load the model before: FAIL : Load model from "
            f"{attack.root}/inside/model.onnx failed:Fatal error: own:Custom(-1) is not a registered "
            "function/op\n"
            "Check the model with another runtime, or convert with --verify off.\n"
        ),
    )
