"""bytearray(10**12): torch's restricted unpickler calls it."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_bytearray_of_a_terabyte(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.call(hp.name("builtins", "bytearray"), hp.number(10**12)))))
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
