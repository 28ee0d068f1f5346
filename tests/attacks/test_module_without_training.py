"""A layer that does not say whether it is training."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_without_training(attack: Attack) -> None:
    net = hp.network()
    del net[0].__dict__["training"]
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNREADABLE]: model.pt holds a Conv2d that is not whole: it has no 'training'\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
