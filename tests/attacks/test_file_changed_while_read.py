"""A file that is changed while it is read: what was checked may not be what was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hostile_onnx as ho
import pytest
from stage import Attack

from bnfold.errors import UnreadableError
from bnfold.loading import onnxfile
from bnfold.loading.load import load


def test_file_changed_while_read(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    attack.write("model.onnx", ho.model())
    read = onnxfile.read

    def and_change(*arguments: Any) -> Any:
        Path("model.onnx").write_bytes(ho.model().SerializeToString() + b" ")
        return read(*arguments)

    monkeypatch.setattr(onnxfile, "read", and_change)
    with pytest.raises(UnreadableError) as caught:
        load("model.onnx")
    assert str(caught.value) == (
        "error[UNREADABLE]: model.onnx was changed while it was read\nTry again when it is complete."
    )
