"""A key made of 60 tuples, each of the one before twice: hashing it takes for ever."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_tuples_in_tuples(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(
            b"\x80\x02}"
            + hp.text("x")
            + b"\x85q\x00"
            + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
            + b"Ns."
        ),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[LIMIT]: model.pt holds a tuple of more than 1000000 elements\n"
            "Save model.state_dict(), with plain tensors and short keys.\n"
        ),
    )
