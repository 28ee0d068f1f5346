"""External data whose name ends at a NUL for the operating system."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_nul(attack: Attack) -> None:
    attack.write("model.onnx", ho.with_weight(ho.external("nets.py\0.data")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: 'nets.py\ufffd.data'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
