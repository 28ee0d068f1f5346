"""An instruction of a later protocol, which hides the names that it imports."""

from __future__ import annotations

import pickle

import hostile_pickles as hp
from stage import Attack


def test_pickle_protocol_4(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(pickle.dumps(attack.payload(), protocol=4)))
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
