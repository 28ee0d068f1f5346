"""A .pt2 program with two members of one name."""

from __future__ import annotations

import hostile_programs as hg
import hostile_zips as hz
from stage import Attack


def test_pt2_with_a_member_twice(attack: Attack) -> None:
    data = hg.program()
    attack.write("model.pt2", hz.appended(data, hz.names(data)[0], b"{}"))
    attack.refused(
        "inspect",
        "model.pt2",
        "--trust-pickle",
        says=(
            "error[UNSAFE]: model.pt2 holds 'archive/data/weights/weight_0' twice\n"
            "Save it again with today's torch.save.\n"
        ),
    )
