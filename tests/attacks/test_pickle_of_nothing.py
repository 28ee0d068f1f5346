"""A pickle that ends with nothing on its stack."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_of_nothing(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(b"\x80\x02."))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNREADABLE]: model.pt is damaged (IndexError: pop from empty list)\nDownload or save it again.\n"),
    )
