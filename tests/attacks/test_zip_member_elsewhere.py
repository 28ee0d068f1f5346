"""A member that does not stand where the directory says."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_member_elsewhere(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.edited(data, "archive/data/1", shift=3)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNREADABLE]: 'archive/data/1' of model.pt does not stand where its directory says\n"
            "Download or save it again.\n"
        ),
    )
