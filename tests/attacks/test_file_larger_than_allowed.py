"""A file of more than --max-bytes is not read."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_file_larger_than_allowed(attack: Attack) -> None:
    attack.write("model.onnx", ho.model())
    attack.refused(
        "inspect",
        "model.onnx",
        "--max-bytes",
        "100",
        says=("error[LIMIT]: model.onnx has 122 bytes, more than 100\nRaise --max-bytes.\n"),
    )
