"""A header that is said to have 4 GB."""

from __future__ import annotations

from stage import Attack


def test_safetensors_header_of_gigabytes(attack: Attack) -> None:
    attack.write("model.safetensors", (2**32 - 1).to_bytes(8, "little") + b"{}")
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: model.safetensors is a damaged or truncated safetensors file "
            "(SafetensorError: Error while deserializing: header too large)\n"
            "Download or save it again.\n"
        ),
    )
