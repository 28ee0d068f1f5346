"""A member that stands inside another one."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_members_that_overlap(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.edited(data, "archive/data/1", offset_of="archive/data/0")
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: 'archive/data/1' of model.pt stands over another member\n"
            "Save it again with today's torch.save.\n"
        ),
    )
