"""A tensor that passes, and is then given another size by BUILD."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_tensor_that_is_set_again(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(
            hp.pickled(
                hp.tensor(hp.storage(), (1,), (1,)),
                hp.row(hp.storage(), hp.number(0), hp.row(hp.number(10**12)), hp.row(hp.number(0))),
                b"b",
            ),
            {"0": bytes(4)},
        ),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds instructions that torch.save does not write\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
