"""External data above the folder, where the model is named without one: onnx_ir would not look."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_by_a_bare_name(attack: Attack) -> None:
    attack.write("model.onnx", ho.with_weight(ho.external("../secret")))
    attack.refused(
        "convert",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
