"""Bytes that are encoded as hex again and again, twice as long each time."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_encoding_that_doubles(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(
            hp.pickled(
                hp.call(
                    hp.name("_codecs", "encode"),
                    hp.call(hp.name("_codecs", "encode"), hp.text("x" * 99), hp.text("hex")),
                    hp.text("hex"),
                )
            )
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
