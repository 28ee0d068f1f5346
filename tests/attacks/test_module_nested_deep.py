"""A hundred and ten modules inside each other, more than Python can follow."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack
from torch import nn


def test_module_nested_deep(attack: Attack) -> None:
    net = hp.network()
    for _ in range(110):
        net = nn.Sequential(net)
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[LIMIT]: model.pt holds modules nested deeper than 100, or more than 100000 of them\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
