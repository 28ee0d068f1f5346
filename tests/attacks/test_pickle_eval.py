"""A pickle that calls eval."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_eval(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(hp.pickled(hp.call(hp.name("builtins", "eval"), hp.text(f"open({str(attack.marker)!r}, 'w')")))),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'builtins.eval'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
