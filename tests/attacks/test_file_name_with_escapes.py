"""A path that holds an escape sequence."""

from __future__ import annotations

from stage import Attack


def test_file_name_with_escapes(attack: Attack) -> None:
    attack.refused(
        "inspect",
        "a\x1b[2J\u202e.onnx",
        says=("error[UNREADABLE]: there is no file a\ufffd[2J\ufffd.onnx\nCheck the path.\n"),
    )
