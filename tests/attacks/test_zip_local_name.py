"""A member called one thing in the directory and another in front of its bytes."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_zip_local_name(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = data.replace(b"archive/data/1", b"archive/data/x", 1)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: 'archive/data/1' of model.pt is called 'archive/data/x' there\n"
            "Save it again with today's torch.save.\n"
        ),
    )
