"""A member of zeros, compressed to a thousandth of its size."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_bomb(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.appended(data, "archive/data/9", bytes(10**7), compressed=True)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: 'archive/data/9' of model.pt is compressed, which torch never does\n"
            "Save it again with today's torch.save.\n"
        ),
    )
