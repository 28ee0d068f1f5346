"""An operator of a .pt2 program is any attribute of the module torch, by its path."""

from __future__ import annotations

import hostile_programs as hg
from stage import Attack


def test_pt2_with_an_operator_of_torch_os(attack: Attack) -> None:
    attack.write("model.pt2", hg.with_operator("torch.hub.os.system"))
    attack.refused(
        "inspect",
        "model.pt2",
        says=(
            "error[UNSAFE]: model.pt2 is a .pt2 program with expressions that torch evaluates as Python\n"
            "Only if you trust whoever made it, pass --trust-pickle: that runs what the file holds.\n"
        ),
    )
