"""The oldest format of torch is a tar archive with pickles."""

from __future__ import annotations

import io
import tarfile

from stage import Attack


def test_pickle_in_a_tar(attack: Attack) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../storages"), io.BytesIO())
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
