"""A member with one size in the directory and another in front of its bytes."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_local_size(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.edited_local(data, "archive/data/0", size=7, flags=0)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: 'archive/data/0' of model.pt has 7 bytes by its header and 72 by the directory\n"
            "Save it again with today's torch.save.\n"
        ),
    )
