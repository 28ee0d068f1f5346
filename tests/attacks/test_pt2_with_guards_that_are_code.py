"""The guards of a .pt2 program are Python that torch.export.load runs; nothing in the archive is pickled."""

from __future__ import annotations

import hostile_programs as hg
from stage import Attack


def test_pt2_with_guards_that_are_code(attack: Attack) -> None:
    attack.write("model.pt2", hg.with_guard(f"__import__('os').mkdir({str(attack.marker)!r}) is None"))
    attack.refused(
        "inspect",
        "model.pt2",
        says=(
            "error[UNSAFE]: model.pt2 is a .pt2 program with expressions that torch evaluates as Python\n"
            "Only if you trust whoever made it, pass --trust-pickle: that runs what the file holds.\n"
        ),
    )
