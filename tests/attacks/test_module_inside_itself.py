"""A module is a part of itself."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_inside_itself(attack: Attack) -> None:
    net = hp.network()
    net[0]._modules["inner"] = net
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNREADABLE]: model.pt holds a module that is a part of itself\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
