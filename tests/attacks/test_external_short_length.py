"""A length that is less than the shape needs."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_short_length(attack: Attack) -> None:
    attack.write("w.data", bytes(24))
    attack.write("model.onnx", ho.with_weight(ho.external("w.data", length=4)))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: 'w' of model.onnx has 4 bytes, and its shape needs 24\nDownload or export it again.\n"
        ),
    )
