"""A function that calls itself, which runtimes write out without an end."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_function_that_calls_itself(attack: Attack) -> None:
    function = ho.function("F", helper.make_node("F", ["a"], ["b"], domain="own"))
    attack.write("model.onnx", ho.model([helper.make_node("F", ["x"], ["y"], domain="own")], functions=[function]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNREADABLE]: the function 'F' of model.onnx calls itself\nDownload or export it again.\n"),
    )
