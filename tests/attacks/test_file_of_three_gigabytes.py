"""A file of 3 GB that looks like ONNX: no message can have as much, so it is not read into memory."""

from __future__ import annotations

from stage import Attack


def test_file_of_three_gigabytes(attack: Attack) -> None:
    with open("model.onnx", "wb") as file:
        file.write(b"\x08\x0a")
        file.truncate(3 * 10**9)
    attack.refused(
        "inspect",
        "model.onnx",
        says=(
            "error[LIMIT]: model.onnx has 3000000000 bytes, more than an ONNX file can have in itself\n"
            "Export it with external data.\n"
        ),
    )
