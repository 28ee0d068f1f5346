"""A message nested deeper than protobuf reads."""

from __future__ import annotations

from hostile_onnx import varint
from stage import Attack


def test_message_nested_deep(attack: Attack) -> None:
    data = b""
    for _ in range(2000):
        data = b"\x32" + varint(len(data)) + data
        data = b"\x2a" + varint(len(data)) + data
    attack.write("model.onnx", b"\x08\x0a\x3a" + varint(len(data)) + data)
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNREADABLE]: model.onnx is a damaged or truncated ONNX file: it names no opset\n"
            "Download or export it again.\n"
        ),
    )
