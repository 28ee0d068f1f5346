"""Input data whose header promises a terabyte."""

from __future__ import annotations

import io

import hostile_onnx as ho
import numpy as np
from stage import Attack


def test_data_of_a_terabyte(attack: Attack) -> None:
    attack.write("model.onnx", ho.model())
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    attack.write("x.npy", buffer.getvalue() + bytes(64))
    attack.refused(
        "convert",
        "model.onnx",
        "--input-data",
        "x.npy",
        says=(
            "error[UNREADABLE]: x.npy is damaged: its header says 4000000000000 bytes, and there are 192\n"
            "Write it again.\n"
        ),
    )
