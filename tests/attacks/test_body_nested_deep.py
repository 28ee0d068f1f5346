"""Bodies of control flow inside each other, deeper than Python can follow."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_body_nested_deep(attack: Attack) -> None:
    inner = ho.body(helper.make_node("Relu", ["x"], ["r"]))
    for _ in range(25):
        inner = ho.body(*ho.branches(inner, "r"))
    attack.write("model.onnx", ho.model(ho.branches(inner)))
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[LIMIT]: model.onnx has bodies of control flow nested deeper than 20\nExport a smaller model.\n"),
    )
