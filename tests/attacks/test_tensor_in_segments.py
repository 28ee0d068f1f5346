"""A weight that is a part of a larger one."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_tensor_in_segments(attack: Attack) -> None:
    made = ho.model()
    w = made.graph.initializer[0]
    w.segment.begin = 0
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNREADABLE]: 'w' of model.onnx is a part of a tensor\nDownload or export it again.\n"),
    )
