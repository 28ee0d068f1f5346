"""A storage whose key is a path out of the archive."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_storage_by_a_path(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.tensor(hp.storage("../../secret"), (1,), (1,))), {"0": bytes(4)}))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNREADABLE]: model.pt is damaged (it lacks the storage '../../secret')\nDownload or save it again.\n"
        ),
    )
