"""Two operators that wait for each other."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_values_in_a_cycle(attack: Attack) -> None:
    attack.write(
        "model.onnx", ho.model([helper.make_node("Add", ["x", "y"], ["t"]), helper.make_node("Tanh", ["t"], ["y"])])
    )
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: model.onnx is a damaged ONNX file: its operators form a cycle\n"
            "Download or export it again.\n"
        ),
    )
