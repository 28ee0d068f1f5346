"""A name of ten million letters: messages have their length."""

from __future__ import annotations

import hostile_onnx as ho
from onnx import helper
from stage import Attack


def test_name_of_ten_megabytes(attack: Attack) -> None:
    attack.write("model.onnx", ho.model([helper.make_node("Tanh", ["z" * 10**7], ["y"], name="n" * 10**7)]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: model.onnx is a damaged ONNX file: "
            "'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
            "nnnnnnnnnnnnnnnnnnnnnnnn…' reads "
            "'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"
            "zzzzzzzzzzzzzzzzzzzzzzzz…', which nothing produces\n"
            "Download or export it again.\n"
        ),
    )
