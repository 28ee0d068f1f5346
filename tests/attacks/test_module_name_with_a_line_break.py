"""The name of a parameter has a line break, behind which generated code would go on."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_module_name_with_a_line_break(attack: Attack) -> None:
    net = hp.network()
    net[0]._parameters["weight\nimport os; os.mkdir('ran')"] = net[0]._parameters.pop("weight")
    attack.write("model.pt", hp.saved(net))
    attack.refused(
        "inspect",
        "model.pt",
        "--input",
        "1x1x4x4",
        says=(
            "error[UNSAFE]: model.pt holds a module with a part called 'weight\ufffdimport os; os.mkdir('ran')'\n"
            "Names of parts are made of letters, digits, _ and -. Save model.state_dict() instead and pass "
            "--arch.\n"
        ),
    )
