"""External data that is a second name of a file outside."""

from __future__ import annotations

import os

import hostile_onnx as ho
from stage import Attack


def test_external_hard_link(attack: Attack) -> None:
    os.link(attack.secret, attack.folder / "w.data")
    attack.write("model.onnx", ho.with_weight(ho.external("w.data")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: 'w.data' (it is a hard "
            "link)\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
