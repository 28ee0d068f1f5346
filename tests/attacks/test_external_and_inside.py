"""A tensor that lies in another file and holds numbers itself."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_and_inside(attack: Attack) -> None:
    tensor = ho.external("w.data")
    tensor.raw_data = ho.NUMBERS.tobytes()
    attack.write("w.data", bytes(24))
    attack.write("model.onnx", ho.with_weight(tensor))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: 'w' of model.onnx lies in another file, and holds numbers itself\n"
            "Download or export it again.\n"
        ),
    )
