"""The name of a refused class holds an escape sequence that clears the screen."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_class_name_with_escapes(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.call(hp.name("evil", "\x1b[2J\u202eclass")))))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'evil.\ufffd[2J\ufffdclass'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
