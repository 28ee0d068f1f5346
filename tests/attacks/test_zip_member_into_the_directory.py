"""A member that reaches into the directory."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_member_into_the_directory(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.edited(data, "archive/.data/serialization_id", size=400, packed=400)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNREADABLE]: 'archive/.data/serialization_id' of model.pt ends at byte 2704, and the "
            "directory begins at 2360\n"
            "Download or save it again.\n"
        ),
    )
