"""A checkpoint whose pickle starts a program."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_os_system(attack: Attack) -> None:
    attack.write("model.pt", hp.saved({"x": attack.payload()}))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'posix.system'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
