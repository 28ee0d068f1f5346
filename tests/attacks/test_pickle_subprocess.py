"""A pickle that starts a process by subprocess."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_subprocess(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(hp.pickled(hp.call(hp.name("subprocess", "getoutput"), hp.text(f"touch {attack.marker}")))),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'subprocess.getoutput'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
