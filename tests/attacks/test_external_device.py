"""External data that is a device."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_device(attack: Attack) -> None:
    attack.write("model.onnx", ho.with_weight(ho.external("/dev/zero")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '/dev/zero'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
