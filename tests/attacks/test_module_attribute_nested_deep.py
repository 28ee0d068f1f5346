"""A list in a list, two hundred times, which copying cannot follow."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_attribute_nested_deep(attack: Attack) -> None:
    net = hp.network()
    net.note = []
    for _ in range(200):
        net.note = [net.note]
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[LIMIT]: model.pt holds containers nested deeper than 100\n"
            "Save model.state_dict() instead and pass --arch.\n"
        ),
    )
