"""A pickle that calls exec by the name it had in Python 2, which unpicklers translate."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_exec_by_its_old_name(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(hp.pickled(hp.call(hp.name("__builtin__", "exec"), hp.text(f"open({str(attack.marker)!r}, 'w')")))),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'builtins.exec'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
