"""A shape whose product is 0 modulo 2**64."""

from __future__ import annotations

from hostile_safetensors import file, st
from stage import Attack


def test_safetensors_shape_that_overflows(attack: Attack) -> None:
    attack.write("model.safetensors", file({"a": st("F32", [2**32, 2**32], 0, 0)}, 0))
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: model.safetensors is a damaged or truncated safetensors file "
            "(SafetensorError: Error while deserializing: overflow computing buffer size from shape and/or "
            "element type)\n"
            "Download or save it again.\n"
        ),
    )
