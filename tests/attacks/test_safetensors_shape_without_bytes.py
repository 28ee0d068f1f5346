"""A shape that needs more bytes than the tensor has."""

from __future__ import annotations

from hostile_safetensors import file, st
from stage import Attack


def test_safetensors_shape_without_bytes(attack: Attack) -> None:
    attack.write("model.safetensors", file({"a": st("F32", [10**6, 10**6], 0, 4)}, 4))
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: model.safetensors is a damaged or truncated safetensors file "
            "(SafetensorError: Error while deserializing: invalid shape, data type, or offset for tensor)\n"
            "Download or save it again.\n"
        ),
    )
