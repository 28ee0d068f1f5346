"""Linear(10**6, 10**6) is built instead of restored; its class is on the allow-list."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_layer_that_is_built(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(
            hp.pickled(hp.call(hp.name("torch.nn.modules.linear", "Linear"), hp.number(10**6), hp.number(10**6)))
        ),
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
