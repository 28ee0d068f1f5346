"""The format of torch before 1.6 is a bare pickle."""

from __future__ import annotations

import io

import torch
from stage import Attack


def test_pickle_of_old_torch(attack: Attack) -> None:
    buffer = io.BytesIO()
    torch.save(attack.payload(), buffer, _use_new_zipfile_serialization=False)
    attack.write("model.pt", buffer.getvalue())
    attack.refused(
        "inspect",
        "model.pt",
        says=(
            "error[UNSAFE]: model.pt is in the legacy format of torch before 1.6, which is a bare pickle\n"
            "Save it again with today's torch.save. Only if you trust whoever made it, pass --trust-pickle: "
            "that runs what the file holds.\n"
        ),
    )
