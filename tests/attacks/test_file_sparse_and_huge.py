"""A file of 40 GB that takes no room on the disk."""

from __future__ import annotations

from stage import Attack


def test_file_sparse_and_huge(attack: Attack) -> None:
    with open("model.onnx", "wb") as file:
        file.truncate(40 * 10**9)
    attack.refused(
        "inspect",
        "model.onnx",
        says=("error[LIMIT]: model.onnx has 40000000000 bytes, more than 32000000000\nRaise --max-bytes.\n"),
    )
