"""Input data that is a pickled object."""

from __future__ import annotations

import hostile_onnx as ho
import numpy as np
from stage import Attack


def test_data_pickled(attack: Attack) -> None:
    attack.write("model.onnx", ho.model())
    np.save("x.npy", np.array([attack.payload()], dtype=object), allow_pickle=True)
    attack.refused(
        "convert",
        "model.onnx",
        "--input-data",
        "x.npy",
        says=("error[UNSAFE]: x.npy holds pickled objects\nSave plain arrays of numbers.\n"),
    )
