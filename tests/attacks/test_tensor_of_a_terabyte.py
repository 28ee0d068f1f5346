"""A weight of a million by a million on no bytes at all."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_tensor_of_a_terabyte(attack: Attack) -> None:
    made = ho.model()
    w = made.graph.initializer[0]
    w.dims[:] = [10**6, 10**6]
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: 'w' of model.onnx holds 24 bytes, and its sizes need 4000000000000\n"
            "Download or export it again.\n"
        ),
    )
