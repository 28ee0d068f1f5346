"""External data that ends behind its file."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_beyond_the_end(attack: Attack) -> None:
    attack.write("w.data", bytes(24))
    attack.write("model.onnx", ho.with_weight(ho.external("w.data", offset=1000)))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: 'w' of model.onnx ends at byte 1024 of 'w.data', which has 24\n"
            "Download or export it again.\n"
        ),
    )
