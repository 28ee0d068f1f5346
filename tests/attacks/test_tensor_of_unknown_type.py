"""A weight of an element type that there is not."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_tensor_of_unknown_type(attack: Attack) -> None:
    made = ho.model()
    w = made.graph.initializer[0]
    w.data_type = 99
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNSUPPORTED]: 'w' of model.onnx has the element type 99\nExport it with another one.\n"),
        code=4,
    )
