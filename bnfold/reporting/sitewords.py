"""What the errors at every site are called, on a terminal and on the page alike.

The gap of a value in another unit is the distance of the units, which is what a fold is for and no error: it is not
shown.
"""

from __future__ import annotations

STATES = {"same": "same", "unit": "other unit", "differs": "differs", "unknown": "unclear"}

NUMBERS = ("gap", "accumulated", "before", "local")

LEGEND = (
    "Parts of the value's own scale. gap: between both models in float64. accumulated: the error that has come "
    "together up to the value; before: that of the unfolded model. local: what the value's own operator rounds. A "
    "value in another unit agrees up to a scale and a shift per channel, as a fold means it to; it has no gap."
)


def gap_shown(state: str | None, gap: float | None) -> float | None:
    """The gap where it is an error."""
    return None if state == "unit" else gap
