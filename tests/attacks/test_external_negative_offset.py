"""External data that begins in front of its file."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_negative_offset(attack: Attack) -> None:
    attack.write("w.data", bytes(24))
    attack.write("model.onnx", ho.with_weight(ho.external("w.data", offset=-8)))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: 'w' of model.onnx has the offset '-8', which is no number\nDownload or export it again.\n"
        ),
    )
