"""A pickle that reads a memo which was never written."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_memo_that_is_not_there(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(b"h\x63")))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNREADABLE]: model.pt is damaged (KeyError: 99)\nDownload or save it again.\n"),
    )
