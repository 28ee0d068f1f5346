"""An attribute of a layer stands in the place of its forward."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_attribute_for_a_method(attack: Attack) -> None:
    net = hp.network()
    net[0].__dict__["forward"] = net[1]
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNSAFE]: model.pt holds a module with an attribute called 'forward'\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
