"""External data of which a hundred tensors show the same bytes: more than --max-bytes in all."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_more_than_allowed(attack: Attack) -> None:
    made = ho.model()
    for index in range(100):
        tensor = ho.external("w.data", f"w{index}", length=12_000)
        tensor.dims[:] = [1000, 3]
        made.graph.initializer.append(tensor)
    attack.write("w.data", bytes(12_000))
    attack.write("model.onnx", made)
    attack.refused(
        "inspect",
        "model.onnx",
        "--max-bytes",
        "1MB",
        says=("error[LIMIT]: the tensors of model.onnx have 1200024 bytes, more than 1000000\nRaise --max-bytes.\n"),
    )
