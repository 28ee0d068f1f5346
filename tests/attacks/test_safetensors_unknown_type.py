"""An element type that there is not."""

from __future__ import annotations

from hostile_safetensors import file, st
from stage import Attack


def test_safetensors_unknown_type(attack: Attack) -> None:
    attack.write("model.safetensors", file({"a": st("PICKLE", [1], 0, 4)}, 4))
    attack.refused(
        "inspect",
        "model.safetensors",
        "--arch",
        "nets.py:net",
        says=(
            "error[UNREADABLE]: model.safetensors is a damaged or truncated safetensors file "
            "(SafetensorError: Error while deserializing: invalid JSON in header: unknown variant `PICKLE`, "
            "expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, "
            "`F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FN…)\n"
            "Download or save it again.\n"
        ),
    )
