"""External data in a folder that is a link out of the folder."""

from __future__ import annotations

import hostile_onnx as ho
from stage import Attack


def test_external_through_a_linked_folder(attack: Attack) -> None:
    (attack.folder / "sub").symlink_to(attack.root)
    attack.write("model.onnx", ho.with_weight(ho.external("sub/secret")))
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[UNSAFE]: the external data of model.onnx lies outside its folder: 'sub/secret' (it is a "
            "link)\n"
            "Put the model and its data files into one folder, as plain files.\n"
        ),
    )
