"""A weight whose size overflows 64 bits to something small."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_tensor_that_overflows(attack: Attack) -> None:
    made = ho.model()
    w = made.graph.initializer[0]
    w.dims[:] = [2**32, 2**32]
    w.raw_data = b""
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[LIMIT]: 'w' of model.onnx has 18446744073709551616 elements in 2 dimensions\n"
            "Export a smaller model.\n"
        ),
    )
