"""A layer has a hook, which is called with every forward."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_with_hooks(attack: Attack) -> None:
    net = hp.network()
    net[0]._forward_hooks[0] = net[1]
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNSAFE]: model.pt holds a module with hooks ('_forward_hooks')\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
