"""External data that is a pipe, which would be waited for."""

from __future__ import annotations

import os

import hostile_onnx as ho
from stage import Attack


def test_external_pipe(attack: Attack) -> None:
    os.mkfifo(attack.folder / "w.data")
    attack.write("model.onnx", ho.with_weight(ho.external("w.data")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx is not a regular file: 'w.data'\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
