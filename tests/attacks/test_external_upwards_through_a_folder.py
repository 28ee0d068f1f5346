"""External data above the folder, by way of one inside it."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_upwards_through_a_folder(attack: Attack) -> None:
    attack.write("model.onnx", ho.with_weight(ho.external("sub/../../secret")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: 'sub/../../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
