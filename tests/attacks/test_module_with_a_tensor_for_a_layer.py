"""A module where a layer is a tensor."""

from __future__ import annotations

import hostile_pickles as hp
import torch
from stage import Attack


def test_module_with_a_tensor_for_a_layer(attack: Attack) -> None:
    net = hp.network()
    net._modules["0"] = torch.zeros(3)
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNREADABLE]: model.pt holds a Sequential that is not whole: its '_modules'\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
