"""External data above the folder, in the part for training."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_in_training_info(attack: Attack) -> None:
    made = ho.model()
    made.training_info.add().initialization.initializer.append(ho.external("../secret"))
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: '../secret'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
