"""A weight with a negative size."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_tensor_of_negative_size(attack: Attack) -> None:
    made = ho.model()
    w = made.graph.initializer[0]
    w.dims[:] = [-2, -3]
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNREADABLE]: 'w' of model.onnx has a size of -3\nDownload or export it again.\n"),
    )
