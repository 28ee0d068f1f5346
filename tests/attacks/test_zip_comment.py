"""A comment in which a second end of the archive may hide."""

from __future__ import annotations

import hostile_pickles as hp
import hostile_zips as hz
from stage import Attack


def test_zip_comment(attack: Attack) -> None:
    data = hp.saved(hp.network().state_dict())
    data = hz.commented(data, b"PK\x05\x06" + bytes(18))
    attack.write("model.pt", data)
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[UNREADABLE]: model.pt is a zip archive that holds no model\n"
            "bnfold reads ONNX, PyTorch checkpoints and modules, safetensors, TorchScript and .pt2 files.\n"
        ),
    )
