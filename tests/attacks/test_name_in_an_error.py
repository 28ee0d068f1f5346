"""The same name in an error."""

from __future__ import annotations

import hostile_onnx as ho
from evil_names import EVIL
from onnx import helper
from stage import Attack


def test_name_in_an_error(attack: Attack) -> None:
    attack.write("model.onnx", ho.model([helper.make_node("Tanh", ["z"], ["y"], name=EVIL)]))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: model.onnx is a damaged ONNX file: "
            "'a\ufffd[2J\ufffd]0;owned\ufffd\ufffd1m\ufffdtxt\ufffd[red]<b>alert</b>&' reads 'z', "
            "which nothing produces\n"
            "Download or export it again.\n"
        ),
    )
