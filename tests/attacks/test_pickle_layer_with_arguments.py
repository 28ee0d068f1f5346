"""A layer is made by its __new__ with arguments, which no layer is."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_layer_with_arguments(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(hp.pickled(hp.name("torch.nn.modules.linear", "Linear"), hp.row(hp.number(10**6)), b"\x81")),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds instructions that torch.save does not write\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
