"""A model whose input has 10**12 numbers, which bnfold would have to draw."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_input_of_a_terabyte(attack: Attack) -> None:
    attack.write("model.onnx", ho.model(x=(5 * 10**11, 2)))
    attack.refused(
        "convert",
        "model.onnx",
        code=2,
        says=(
            "error[USAGE]: an input of shape 500000000000x2 would hold 1000000000000 values\n"
            "Pass a shape of at most 536870912 values.\n"
        ),
    )
