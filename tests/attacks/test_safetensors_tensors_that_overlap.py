"""Two tensors of which one begins inside the other."""

from __future__ import annotations

from hostile_safetensors import file, st
from stage import Attack


def test_safetensors_tensors_that_overlap(attack: Attack) -> None:
    attack.write("model.safetensors", file({"a": st("F32", [1], 0, 4), "b": st("F32", [1], 2, 6)}, 6))
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: model.safetensors is a damaged or truncated safetensors file "
            "(SafetensorError: Error while deserializing: invalid offset for tensor `b`)\n"
            "Download or save it again.\n"
        ),
    )
