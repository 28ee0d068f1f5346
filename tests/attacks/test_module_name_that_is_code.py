"""The name of a layer ends the text it is put into: torch.export would run the rest as Python."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_name_that_is_code(attack: Attack) -> None:
    net = hp.network()
    code = 'x", 0) or getattr(__import__("os"), "mkdir")("../ran") or getattr(self, "y'
    net._modules = {code: net[0], "1": net[1]}
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            'error[UNSAFE]: model.pt holds a module with a part called \'x", 0) or getattr(__import__("os"), '
            '"mkdir")("../ran") or getattr(self, "y\'\n'
            "Names of parts are made of letters, digits, _ and -. Save model.state_dict() instead and pass "
            "--arch.\n"
        ),
    )
