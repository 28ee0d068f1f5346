"""A pickle that imports a module, which runs its code."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_import(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.call(hp.name("builtins", "__import__"), hp.text("nets")))))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'builtins.__import__'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
