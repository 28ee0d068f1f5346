"""The same name in the traceback that -vv shows, which other libraries have worded."""

from __future__ import annotations

import hostile_onnx as ho
from evil_names import EVIL
from onnx import helper
from stage import Attack


def test_name_in_a_traceback(attack: Attack) -> None:
    attack.write("model.onnx", ho.model([helper.make_node(EVIL, ["x"], ["y"], name=EVIL)]))
    code, out, err = attack.run("bench", "model.onnx", "-vv")
    assert (code, out) == (4, "")
    assert "Traceback" in err
    assert all(char.isprintable() or char == "\n" for char in err)
