"""External data that is not there."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_missing(attack: Attack) -> None:
    attack.write("model.onnx", ho.with_weight(ho.external("w.data")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: model.onnx needs the file 'w.data' beside it, and there is none\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
