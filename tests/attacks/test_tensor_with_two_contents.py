"""A weight that holds its numbers twice, and readers take different ones."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_tensor_with_two_contents(attack: Attack) -> None:
    made = ho.model()
    w = made.graph.initializer[0]
    w.float_data.extend([0.0] * 6)
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNREADABLE]: 'w' of model.onnx holds its numbers twice\nDownload or export it again.\n"),
    )
