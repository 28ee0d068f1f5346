"""The keys of a state dict hold escape sequences and surrogates."""

from __future__ import annotations

import hostile_pickles as hp
from evil_names import EVIL
from stage import Attack


def test_name_of_a_weight(attack: Attack) -> None:
    state = hp.network().state_dict()
    state[EVIL + "\ud800"] = state.pop("1.weight")
    attack.write("model.pt", hp.saved(state))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[INPUT]: model.pt lacks 1 of the weights of nets.py:net: '1.weight' (6 matched, 1 missing, "
            "1 unexpected)\n"
            "Pass a complete checkpoint, or the --arch and --arch-arg it was trained with.\n"
        ),
    )
