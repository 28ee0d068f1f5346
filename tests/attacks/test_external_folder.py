"""External data that is a folder."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_folder(attack: Attack) -> None:
    (attack.folder / "w.data").mkdir()
    attack.write("model.onnx", ho.with_weight(ho.external("w.data")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx is not a regular file: 'w.data'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
