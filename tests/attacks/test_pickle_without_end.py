"""A pickle that stops in the middle of an instruction."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_without_end(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.text("y" * 50))[:-30]))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNREADABLE]: model.pt is damaged (ValueError: expected 50 bytes in a unicodestring4, but "
            "only 22 remain)\n"
            "Download or save it again.\n"
        ),
    )
