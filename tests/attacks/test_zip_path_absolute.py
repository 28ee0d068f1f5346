"""A member with an absolute path."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_path_absolute(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.appended(data, "/etc/passwd", b"x")
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt holds a member with the path '/etc/passwd'\n"
            "Save it again with today's torch.save.\n"
        ),
    )
