"""Bytes behind the end of the archive."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_zip_bytes_behind(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = data + b"#!/bin/sh"
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNSAFE]: model.pt holds bytes behind its end\nSave it again with today's torch.save.\n"),
    )
