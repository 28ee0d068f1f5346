"""A member that has one size stored and another one unpacked."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_sizes_that_disagree(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.edited(data, "archive/data/0", size=10**9)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNREADABLE]: 'archive/data/0' of model.pt is stored as 72 bytes and said to have "
            "1000000000\n"
            "Download or save it again.\n"
        ),
    )
