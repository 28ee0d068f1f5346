"""Output names its graph after nothing: a doc string with markup does not reach the report."""

from __future__ import annotations

import hostile_onnx as ho
from evil_names import EVIL
from stage import Attack


def test_name_in_a_text_file(attack: Attack) -> None:
    made = ho.model()
    made.doc_string = made.graph.doc_string = made.producer_name = EVIL
    made.metadata_props.add(key=EVIL, value=EVIL)
    attack.write("model.onnx", made)
    out, _ = attack.accepted("inspect", "model.onnx", "-v", "--json", "-")
    assert "owned" not in out
