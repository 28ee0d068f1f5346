"""A pickle that loads a shared library, as of custom operators."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_loads_a_library(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.call(hp.name("ctypes", "CDLL"), hp.text("./nets.so")))))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'ctypes.CDLL'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
