"""A device that never ends."""

from __future__ import annotations

from stage import Attack


def test_file_device(attack: Attack) -> None:
    attack.refused(
        "inspect", "/dev/zero", says=("error[UNREADABLE]: /dev/zero is not a regular file\nSave it to a file first.\n")
    )
