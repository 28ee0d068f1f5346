"""A tensor that ends behind the file."""

from __future__ import annotations

from hostile_safetensors import file, st
from stage import Attack


def test_safetensors_beyond_the_end(attack: Attack) -> None:
    attack.write("model.safetensors", file({"a": st("F32", [10**6], 0, 4 * 10**6)}, 4))
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: model.safetensors is a damaged or truncated safetensors file "
            "(SafetensorError: Error while deserializing: incomplete metadata, file not fully covered)\n"
            "Download or save it again.\n"
        ),
    )
