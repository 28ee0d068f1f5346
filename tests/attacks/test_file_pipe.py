"""A pipe in the place of a model, which would be waited for."""

from __future__ import annotations

import os

from stage import Attack


def test_file_pipe(attack: Attack) -> None:
    os.mkfifo("model.onnx")
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[UNREADABLE]: model.onnx is not a regular file\nSave it to a file first.\n"),
    )
