"""A pickle that lets torch.hub download and run a repository."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_downloads_code(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(hp.pickled(hp.call(hp.name("torch.hub", "load"), hp.text("somebody/something"), hp.text("model")))),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'torch.hub.load'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
