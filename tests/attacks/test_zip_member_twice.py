"""Two members of one name: one reader takes the first, another the last."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_member_twice(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.appended(data, "archive/data.pkl", hp.saved({"x": attack.payload()}))
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNSAFE]: model.pt holds 'archive/data.pkl' twice\nSave it again with today's torch.save.\n"),
    )
