"""A layer whose parameters are a number."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_without_its_parts(attack: Attack) -> None:
    net = hp.network()
    net[0].__dict__["_parameters"] = 5
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNREADABLE]: model.pt holds a Conv2d that is not whole: its '_parameters'\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
