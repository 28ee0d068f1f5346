"""External data at an absolute path."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_absolute(attack: Attack) -> None:
    attack.write("model.onnx", ho.with_weight(ho.external(str(attack.secret))))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            f"error[UNSAFE]: the external data of model.onnx lies outside its folder: '{attack.root}/secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
