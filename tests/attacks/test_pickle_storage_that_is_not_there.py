"""A tensor on a storage that is not in the archive."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_storage_that_is_not_there(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.tensor(hp.storage("7"), (1,), (1,))), {"0": bytes(4)}))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[UNREADABLE]: model.pt is damaged (it lacks the storage '7')\nDownload or save it again.\n"),
    )
