"""A program in front of the archive, which zip readers skip."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_bytes_in_front(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.behind(data[:200] + b"#!/bin/sh", data)
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNSAFE]: model.pt holds bytes before its first member\nSave it again with today's torch.save.\n"),
    )
