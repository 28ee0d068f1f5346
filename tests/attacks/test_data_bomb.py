"""Input data that is compressed to a thousandth of its size."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from stage import Attack


def test_data_bomb(attack: Attack) -> None:
    attack.write("model.onnx", ho.model())
    np.savez_compressed("x.npz", x=np.zeros((10**6, 2), np.float32))
    attack.refused(
        "convert",
        "model.onnx",
        "--input-data",
        "x.npz",
        "--max-bytes",
        "1MB",
        says=("error[LIMIT]: the arrays of x.npz have 8000128 bytes, more than 1000000\nRaise --max-bytes.\n"),
    )
