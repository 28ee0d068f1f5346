"""An end record that points to another directory than the one in front of it."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_zip_directory_elsewhere(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = data[:-6] + (10).to_bytes(4, "little") + data[-2:]
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt has two ends that point to two directories\n"
            "Save it again with today's torch.save.\n"
        ),
    )
