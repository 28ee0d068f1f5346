"""Integer keys that all have the same hash, so that a dictionary takes quadratic time."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_keys_that_collide(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(b"\x80\x02}(" + b"".join(hp.number(i * (2**61 - 1)) + b"N" for i in range(1, 2000)) + b"u."),
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
