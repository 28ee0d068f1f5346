"""In which units a BatchNorm's two sides are measured after a fold, as ranges over its channels, for reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold.units.affine import Array
from bnfold.units.layout import Cells
from bnfold.units.solver import Solution
from bnfold.units.system import System

Range = tuple[float, float]


@dataclass(frozen=True)
class UnitRanges:
    """The smallest and largest number over the channels of an affine `y = s·x + t`.

    It vanishes where its input is `X = S·X' + T` and its output the same tensor `X'` in the unit that `s` and `t` make
    of that.

    Attributes:
        channels: How many there are.
        s: What it multiplies by.
        t: What it adds.
        scale_in: `S` of its input.
        shift_in: `T` of its input.
        scale_out: `S` of its output.
        shift_out: `T` of its output.
    """

    channels: int
    s: Range
    t: Range
    scale_in: Range
    shift_in: Range
    scale_out: Range
    shift_out: Range

    def to_dict(self) -> dict[str, Any]:
        """The ranges as they stand in `--json`; a number that is not finite is null."""
        ranges = {name: value for name, value in vars(self).items() if name != "channels"}
        return {
            "channels": self.channels,
            **{name: [_short(end) for end in pair] for name, pair in ranges.items()},
        }


def _short(value: float) -> float | None:
    """Six digits, which is what a range is worth."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def unit_ranges(system: System, solution: Solution) -> dict[str, UnitRanges]:
    """The ranges of every affine of a system that may vanish, by its name; all of them at once, which costs little."""
    candidates = [candidate for candidate in system.candidates if len(candidate.x)]
    if not candidates:
        return {}
    starts = np.cumsum([0, *(len(candidate.x) for candidate in candidates[:-1])])

    def joined(arrays: Sequence[Any]) -> Any:
        return np.concatenate([np.ravel(array) for array in arrays])

    def ends(values: Array) -> list[Range]:
        low, high = np.minimum.reduceat(values, starts).tolist(), np.maximum.reduceat(values, starts).tolist()
        return list(zip(low, high, strict=True))

    x: Cells = joined([candidate.x for candidate in candidates])
    y: Cells = joined([candidate.y for candidate in candidates])
    columns = (
        joined([candidate.scale for candidate in candidates]),
        joined([candidate.shift for candidate in candidates]),
        solution.scale[x],
        solution.shift[x],
        solution.scale[y],
        solution.shift[y],
    )
    rows = zip(*map(ends, columns), strict=True)
    return {
        candidate.op.name: UnitRanges(len(candidate.x), *row) for candidate, row in zip(candidates, rows, strict=True)
    }
