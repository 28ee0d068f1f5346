"""A checkpoint that is its own state dict."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_wrapped_in_itself(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(b"\x80\x02}q\x00" + hp.text("model") + b"h\x00s."))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=("error[LIMIT]: model.pt wraps its state dict more than 10 times\nSave the inner one alone.\n"),
    )
