"""A layer is called like a method of the module it is in."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_name_of_a_method(attack: Attack) -> None:
    net = hp.network()
    net._modules["state_dict"] = net[0]
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNSAFE]: model.pt holds a module with a part called 'state_dict'\n"
            "Names of parts are made of letters, digits, _ and -. Save model.state_dict() instead and pass "
            "--arch.\n"
        ),
    )
