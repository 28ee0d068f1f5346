"""A storage that is said to have 1000 floats, and has one."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_storage_shorter_than_said(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.tensor(hp.storage(count=1000), (1,), (1,))), {"0": bytes(4)}))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNREADABLE]: model.pt is damaged (RuntimeError: record size (4 bytes) does not match "
            "expected size (4000 bytes = 4000 elements * 1 bytes/element) for dtype Byte)\n"
            "Download or save it again.\n"
        ),
    )
