"""A pickle that calls torch.load on another file, where weights_only would not hold."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_loads_another_pickle(attack: Attack) -> None:
    attack.write(
        "model.pt", hp.archive(hp.pickled(hp.call(hp.name("torch.serialization", "load"), hp.text(str(attack.secret)))))
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'torch.serialization.load'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
