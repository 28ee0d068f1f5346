"""A weight that holds fewer bytes than its shape needs."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_tensor_with_too_few_bytes(attack: Attack) -> None:
    made = ho.model()
    w = made.graph.initializer[0]
    w.raw_data = bytes(8)
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: 'w' of model.onnx holds 8 bytes, and its sizes need 24\nDownload or export it again.\n"
        ),
    )
