"""An offset that overflows."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_huge_offset(attack: Attack) -> None:
    attack.write("w.data", bytes(24))
    attack.write("model.onnx", ho.with_weight(ho.external("w.data", offset=2**64)))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: 'w' of model.onnx has the offset '18446744073709551616', which is no number\n"
            "Download or export it again.\n"
        ),
    )
