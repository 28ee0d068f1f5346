"""External data that names two places, of which readers take different ones."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_two_places(attack: Attack) -> None:
    tensor = ho.external("w.data")
    tensor.external_data.add(key="location", value="../secret")
    attack.write("w.data", bytes(24))
    attack.write("model.onnx", ho.with_weight(tensor))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: 'w' of model.onnx names the place of its external data more than once, or not at "
            "all\n"
            "Download or export it again.\n"
        ),
    )
