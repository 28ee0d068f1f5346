"""A thousand tensors that each show the whole of one storage: more than --max-bytes in all."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_tensors_that_overlap(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(hp.pickled(hp.row(*[hp.tensor(hp.storage(count=1000), (1000,), (1,))] * 1000)), {"0": bytes(4000)}),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        "--max-bytes",
        "1MB",
        says=("error[LIMIT]: the tensors of model.pt have more than 1000000 bytes in all\nRaise --max-bytes.\n"),
    )
