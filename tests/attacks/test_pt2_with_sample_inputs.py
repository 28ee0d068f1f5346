"""A .pt2 program holds its sample inputs as a pickle."""

from __future__ import annotations

import hostile_programs as hg
from stage import Attack


def test_pt2_with_sample_inputs(attack: Attack) -> None:
    attack.write("model.pt2", hg.with_pickled_inputs(attack.payload()))
    attack.refused(
        "inspect",
        "model.pt2",
        says=(
            "error[UNSAFE]: model.pt2 is a .pt2 program with pickled parts "
            "('archive/data/sample_inputs/model.pt')\n"
            "Only if you trust whoever made it, pass --trust-pickle: that runs what the file holds.\n"
        ),
    )
