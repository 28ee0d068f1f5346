"""External data that is a link out of the folder."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_symlink(attack: Attack) -> None:
    (attack.folder / "w.data").symlink_to(attack.secret)
    attack.write("model.onnx", ho.with_weight(ho.external("w.data")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: 'w.data' (it is a link)\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
