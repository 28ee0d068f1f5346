"""A pickle that maps a file outside into an array."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_reads_a_file(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.call(hp.name("numpy", "memmap"), hp.text(str(attack.secret))))))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'numpy.memmap'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
