"""Shift equations: incremental Gaussian elimination on short sparse rows that can take steps back.

A row says `Σ coefficient ⊙ T_block = rhs`, lane by lane. It is reduced from its latest block downwards: where that
block has a pivot, the pivot's row is subtracted; where it has none, the row becomes its pivot. So a residual stream, in
which `T_{l+1} = T_l + bias_l`, gives rows of two or three blocks however deep it is. Lanes of one row can find their
pivots at different blocks (where coefficients cancel in some channels only), so a pivot holds for a mask of lanes. A
row that reduces to `0 = rhs` with `rhs ≠ 0` contradicts the others and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.affine import Array
from bnfold.window import Mask

CANCELLED = 1e-12  # a difference this small, relative to its terms, is 0
CONSISTENT = 1e-11  # rounding that a right-hand side may gather on its way


@dataclass(frozen=True)
class Pivot:
    """A row solved for one block: `T_block = rhs − Σ coefficient ⊙ T` on some lanes.

    Attributes:
        lanes: Where it holds; None for everywhere.
        terms: Coefficients by block, 0 outside `lanes`; all blocks are earlier than the pivot's.
        rhs: float64[lanes].
        why: Labels of the equations it was made of.
    """

    lanes: Mask | None
    terms: dict[int, Array]
    rhs: Array
    why: frozenset[object]


class Shifts:
    """The shift equations accepted so far."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self._pivots: dict[int, list[Pivot]] = {}
        self._log: list[int] = []

    def mark(self) -> int:
        """A point to go back to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Undo everything since a mark."""
        while len(self._log) > mark:
            self._pivots[self._log.pop()].pop()

    def add(self, terms: list[tuple[int, Array]], rhs: Array, why: frozenset[object]) -> frozenset[object] | None:
        """Add an equation.

        Args:
            terms: Blocks and their coefficients, float64[lanes]; a block may occur twice.
            rhs: float64[lanes].
            why: Labels for it.

        Returns:
            None if it fits; else the labels of the equations that contradict it. Then the caller must roll back.
        """
        row: dict[int, Array] = {}
        for block, coefficient in terms:
            row[block] = row[block] + coefficient if block in row else coefficient
        size = np.abs(rhs)
        while row:
            latest = max(row)
            coefficient = row.pop(latest)
            for pivot in self._pivots.get(latest, ()):
                factor = coefficient if pivot.lanes is None else np.where(pivot.lanes, coefficient, 0.0)
                if not factor.any():
                    continue
                for block, other in pivot.terms.items():
                    step = factor * other
                    before = row.get(block)
                    if before is None:
                        row[block] = -step
                        continue
                    after = before - step
                    after[np.abs(after) <= CANCELLED * (np.abs(before) + np.abs(step))] = 0.0
                    row[block] = after
                rhs = rhs - factor * pivot.rhs
                size = size + np.abs(factor * pivot.rhs)
                why = why | pivot.why
                coefficient = (
                    np.zeros_like(coefficient) if pivot.lanes is None else np.where(pivot.lanes, 0.0, coefficient)
                )
            free = coefficient != 0
            if not free.any():
                continue
            inverse = np.where(free, 1.0 / np.where(free, coefficient, 1.0), 0.0)
            lanes = None if free.all() else free
            solved = {block: other * inverse for block, other in row.items()}
            solved = {block: other for block, other in solved.items() if other.any()}
            self._pivots.setdefault(latest, []).append(Pivot(lanes, solved, rhs * inverse, why))
            self._log.append(latest)
            if lanes is None:
                return None
            rest = ~free
            row = {block: np.where(rest, other, 0.0) for block, other in row.items()}
            row = {block: other for block, other in row.items() if other.any()}
            rhs, size = np.where(rest, rhs, 0.0), np.where(rest, size, 0.0)
        return why if np.any(np.abs(rhs) > CONSISTENT * size) else None

    def solve(self) -> list[Array]:
        """The shift of every block, 0 where nothing decides it."""
        result: list[Array] = []
        for block, lanes in enumerate(self._sizes):
            shift = np.zeros(lanes)
            for pivot in self._pivots.get(block, ()):
                value, size = pivot.rhs, np.abs(pivot.rhs)
                for other, coefficient in pivot.terms.items():
                    step = coefficient * result[other]
                    value, size = value - step, size + np.abs(step)
                value = np.where(np.abs(value) <= CANCELLED * size, 0.0, value)
                shift = value if pivot.lanes is None else np.where(pivot.lanes, value, shift)
            result.append(shift)
        return result
