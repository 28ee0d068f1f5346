"""A module of a class of its own: refused by name, and the class is not imported."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_of_own_class(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.name("nets", "Network"), b")\x81")))
    attack.refused(
        "convert",
        "model.pt",
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'nets.Network'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
