"""Two folders at the top, each with a pickle: which is the model?"""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_two_folders(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.appended(data, "other/data.pkl", b"x")
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt holds more than one folder at its top\nSave it again with today's torch.save.\n"
        ),
    )
