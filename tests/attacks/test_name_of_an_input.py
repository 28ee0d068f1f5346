"""The same name as that of an input, where a runtime and a shape disagree."""

from __future__ import annotations

import hostile_onnx as ho
from evil_names import EVIL
from stage import Attack


def test_name_of_an_input(attack: Attack) -> None:
    made = ho.model()
    made.graph.input[0].name = made.graph.node[0].input[0] = EVIL
    attack.write("model.onnx", made)
    attack.refused(
        "convert",
        "model.onnx",
        "--input",
        "5x5x5",
        code=2,
        says=(
            "error[USAGE]: input 'a\\x1b[2J\\x1b]0;owned\\x07\\x9b1m\\u202etxt\\u2066[red]<b>alert</b>&' is ?x2, "
            "and --input has 5x5x5\n"
            "Pass a shape that agrees with the model's.\n"
        ),
    )
