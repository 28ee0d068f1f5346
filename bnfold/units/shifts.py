"""Shift equations: incremental Gaussian elimination on short sparse rows that can take steps back.

A row says `Σ coefficient ⊙ T_block = rhs`, lane by lane. It is reduced from its latest block downwards: where that
block has a pivot, the pivot's row is subtracted; where it has none, the row becomes its pivot. So a residual stream, in
which `T_{l+1} = T_l + bias_l`, gives rows of two or three blocks however deep it is. Lanes of one row can find their
pivots at different blocks (where coefficients cancel in some channels only), so a pivot holds for a mask of lanes. A
row that reduces to `0 = rhs` with `rhs ≠ 0` contradicts the others and is refused.

Most coefficients are ±1 and most right-hand sides 0 in all lanes: those are plain numbers, the others arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bnfold.units.blocks import Lanes, magnitude, some
from bnfold.units.window import Mask

CANCELLED = 1e-12  # a difference this small, relative to its terms, is 0
CONSISTENT = 1e-11  # rounding that a right-hand side may gather on its way


@dataclass(frozen=True)
class Pivot:
    """A row solved for one block: `T_block = rhs − Σ coefficient ⊙ T` on some lanes.

    Attributes:
        lanes: Where it holds; None for everywhere.
        terms: Coefficients by block, 0 outside `lanes`; all blocks are earlier than the pivot's.
        rhs: float64[lanes], or one number for all.
        why: Labels of the equations it was made of.
    """

    lanes: Mask | None
    terms: dict[int, Lanes]
    rhs: Lanes
    why: frozenset[object]


class Shifts:
    """The shift equations accepted so far."""

    def __init__(self) -> None:
        self._pivots: dict[int, list[Pivot]] = {}
        self._log: list[int] = []

    def mark(self) -> int:
        """A point to go back to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Undo everything since a mark."""
        while len(self._log) > mark:
            self._pivots[self._log.pop()].pop()

    def add(self, terms: Iterable[tuple[int, Lanes]], rhs: Lanes, why: frozenset[object]) -> frozenset[object] | None:
        """Add an equation.

        Args:
            terms: Blocks and their coefficients, float64[lanes] or one number for all; a block may occur twice.
            rhs: float64[lanes], or one number for all.
            why: Labels for it.

        Returns:
            None if it fits; else the labels of the equations that contradict it. Then the caller must roll back.
        """
        row: dict[int, Lanes] = {}
        for block, coefficient in terms:
            row[block] = row[block] + coefficient if block in row else coefficient
        size = magnitude(rhs)
        while row:
            latest = max(row)
            coefficient = row.pop(latest)
            for pivot in self._pivots.get(latest, ()):
                factor = coefficient if pivot.lanes is None else np.where(pivot.lanes, coefficient, 0.0)
                if not some(factor):
                    continue
                for block, other in pivot.terms.items():
                    step = factor * other
                    row[block] = _difference(row[block], step) if block in row else -step
                rhs, size = rhs - factor * pivot.rhs, size + magnitude(factor * pivot.rhs)
                why = why | pivot.why
                coefficient = 0.0 if pivot.lanes is None else np.where(pivot.lanes, 0.0, coefficient)
            free = coefficient != 0
            if not some(free):
                continue
            lanes = free if isinstance(free, np.ndarray) and not free.all() else None
            inverse: Lanes
            if lanes is None:
                inverse = 1.0 / coefficient
            else:
                inverse = np.where(lanes, 1.0 / np.where(lanes, coefficient, 1.0), 0.0)
            solved = {block: other * inverse for block, other in row.items()}
            solved = {block: other for block, other in solved.items() if some(other)}
            self._pivots.setdefault(latest, []).append(Pivot(lanes, solved, rhs * inverse, why))
            self._log.append(latest)
            if lanes is None:
                return None
            rest = ~lanes
            row = {block: np.where(rest, other, 0.0) for block, other in row.items()}
            row = {block: other for block, other in row.items() if some(other)}
            rhs, size = np.where(rest, rhs, 0.0), np.where(rest, size, 0.0)
        return why if some(magnitude(rhs) > CONSISTENT * size) else None

    def solve(self) -> dict[int, Lanes]:
        """The shift of every block that an equation decides; all others are 0."""
        result: dict[int, Lanes] = {}
        for block in sorted(self._pivots):
            shift: Lanes = 0.0
            for pivot in self._pivots[block]:
                value, size = pivot.rhs, magnitude(pivot.rhs)
                for other, coefficient in pivot.terms.items():
                    if other in result:
                        step = coefficient * result[other]
                        value, size = value - step, size + magnitude(step)
                value = _without(value, CANCELLED * size)
                shift = value if pivot.lanes is None else np.where(pivot.lanes, value, shift)
            if some(shift):
                result[block] = shift
        return result


def _difference(a: Lanes, b: Lanes) -> Lanes:
    """`a − b`, 0 where nothing but rounding is left."""
    return _without(a - b, CANCELLED * (magnitude(a) + magnitude(b)))


def _without(values: Lanes, limit: Lanes) -> Lanes:
    """Values, 0 where they are no larger than a limit."""
    small = magnitude(values) <= limit
    if isinstance(small, np.ndarray):
        return np.where(small, 0.0, values) if small.any() else values
    return 0.0 if small else values
