"""A member whose name ends at a NUL for some readers."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_path_with_nul(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.appended(data, "archive/data\0.pkl", b"x")
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt holds a member with the path 'archive/data'\n"
            "Save it again with today's torch.save.\n"
        ),
    )
