"""Two functions that call each other."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_functions_that_call_each_other(attack: Attack) -> None:
    functions = [
        ho.function("F", helper.make_node("G", ["a"], ["b"], domain="own")),
        ho.function("G", helper.make_node("F", ["a"], ["b"], domain="own")),
    ]
    attack.write("model.onnx", ho.model([helper.make_node("G", ["x"], ["y"], domain="own")], functions=functions))
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNREADABLE]: the function 'G' of model.onnx calls itself\nDownload or export it again.\n"),
    )
