"""A member that is marked as encrypted."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_encrypted(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.edited(data, "archive/version", flags=1)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNSAFE]: 'archive/version' of model.pt is encrypted\nSave it again with today's torch.save.\n"),
    )
