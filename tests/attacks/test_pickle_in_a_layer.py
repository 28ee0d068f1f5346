"""Code hidden in an attribute of a layer of torch.nn."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_in_a_layer(attack: Attack) -> None:
    net = hp.network()
    net[0].note = attack.payload()
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        says=(
            "error[UNSAFE]: model.pt is pickled and holds 'posix.system'\n"
            "Save model.state_dict() instead and pass --arch. Only if you trust whoever made it, pass "
            "--trust-pickle: that runs what the file holds.\n"
        ),
    )
