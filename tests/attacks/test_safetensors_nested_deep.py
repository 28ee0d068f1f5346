"""A header of ten thousand brackets."""

from __future__ import annotations

from hostile_safetensors import file
from stage import Attack


def test_safetensors_nested_deep(attack: Attack) -> None:
    attack.write("model.safetensors", file(b'{"a":' + b"[" * 10_000, 0))
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: model.safetensors is a damaged or truncated safetensors file "
            "(SafetensorError: Error while deserializing: invalid JSON in header: recursion limit exceeded "
            "at line 1 column 132)\n"
            "Download or save it again.\n"
        ),
    )
