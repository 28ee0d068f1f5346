"""An archive of which the end is missing."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_zip_truncated(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = data[:-40]
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNREADABLE]: model.pt is a damaged or truncated zip archive\nDownload or save it again.\n"),
    )
