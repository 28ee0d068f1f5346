"""What the laws say about units, collected: the system that the solver solves.

Every cell has a scale `S` and a shift `T`. A cell below `GROUND` stands for a value that keeps its unit (`S = 1`, `T =
0`) for the reason with that number. All else is written down here, always for arrays of cells at a time:

    tie         S_a = S_b
    row         Σ coefficient · T = 0
    positive    S > 0
    rigid       S = 1, for a reason
    pinned      T = 0, for a reason
    candidate   a constant affine y = s·x + t, removed if S_y = s·S_x and T_y = s·T_x + t
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.graph import Affine
from bnfold.units.layout import Axis, Cells, ravel

REASONS = tuple(Reason)
GROUND = len(REASONS)


def ground(reason: Reason) -> int:
    """The cell of values that keep their unit for a reason."""
    return REASONS.index(reason)


@dataclass(frozen=True)
class Candidate:
    """A constant affine that may vanish.

    Attributes:
        op: The operator.
        x: int64[n], cells it reads.
        y: int64[n], cells it writes.
        scale: float64[n].
        shift: float64[n].
        gain: Elements of activation traffic saved per sample if it goes.
        relu_only: Whether every reader of its result is a ReLU, so that a channel that never exceeds 0 is 0.
        spread: float64[n], standard deviation of what it reads, as the BatchNorm knows it; None where it does not.
    """

    op: Affine
    x: Cells
    y: Cells
    scale: Array
    shift: Array
    gain: float
    relu_only: bool = False
    spread: Array | None = None


class Tie(NamedTuple):
    """`S_a = S_b`; `shared` marks a tie between the uses of one weight."""

    a: Cells
    b: Cells
    shared: bool = False


class Row(NamedTuple):
    """`Σ coefficient · T_cells = 0`, the cells of the value that was computed last first."""

    terms: tuple[tuple[float, Cells], ...]


@dataclass
class System:
    """Everything the laws said about one graph.

    Attributes:
        starts: First cell of each run of cells that were made together.
        size: Number of cells.
        ties: Scale equalities.
        rows: Shift equalities.
        positive: Cells whose scale must be positive.
        rigid: Cells whose scale is 1, with the reason.
        pinned: Cells whose shift is 0, with the reason.
        passing: Cells of a positive constant that only ReLUs read, and the constant, which is at least their shift.
        read: Cells whose value is needed in a known unit by something other than a candidate.
        made: Cells whose value is produced by something that divides by the scale.
        candidates: Affines that may vanish, in graph order.
        views: Cells of an operator's input and output channels, by the operator's name.
        sums: Names of Add operators.
        offsets: Names of operators that add a constant which varies by position.
        axes: Layout of the output cells of operators whose constants may vary by position, by name.
        arrays: The array that each run was made as.
        shared: Views of the operators that read one stored weight.
        weights: Number of stored elements behind an operator's units, by name: what a change of its unit rewrites.
    """

    starts: list[int] = field(default_factory=lambda: list(range(GROUND)))
    size: int = GROUND
    ties: list[Tie] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    positive: list[Cells] = field(default_factory=list)
    rigid: list[tuple[Cells, Reason]] = field(default_factory=list)
    pinned: list[tuple[Cells, Reason]] = field(default_factory=list)
    passing: list[tuple[Cells, Array]] = field(default_factory=list)
    read: list[Cells] = field(default_factory=list)
    made: list[Cells] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    views: dict[str, tuple[Cells, Cells]] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    sums: set[str] = field(default_factory=set)
    offsets: set[str] = field(default_factory=set)
    axes: dict[str, tuple[Axis, ...]] = field(default_factory=dict)
    shared: dict[Hashable, list[tuple[Cells, Cells]]] = field(default_factory=dict)
    _run_of: Cells | None = None
    arrays: list[Cells] = field(default_factory=list)
    _made: dict[int, int] = field(default_factory=dict)

    def new(self, shape: Sequence[int]) -> Cells:
        """Make new cells: a run."""
        count = math.prod(shape)
        cells = np.arange(self.size, self.size + count, dtype=np.int64)
        if count:
            self._made[id(cells)] = len(self.starts)
            self.arrays.append(cells)  # while it is held, nothing else can have its id
        self.starts.append(self.size)
        self.size += count
        return cells if len(shape) == 1 else cells.reshape(tuple(shape))

    def made_as(self, cells: Cells) -> int | None:
        """The run that this very array was made for; None where that cannot be told without looking at the cells."""
        return self._made.get(id(cells))

    def run_of(self) -> Cells:
        """For each cell, the number of the run of cells it was made with."""
        if self._run_of is None or len(self._run_of) != self.size:
            lengths = np.diff([*self.starts, self.size])
            self._run_of = np.repeat(np.arange(len(self.starts), dtype=np.int64), lengths)
        return self._run_of

    def runs(self, cells: Cells) -> list[int]:
        """The runs of cells, made together, that some cells belong to; values that keep their unit belong to none."""
        made = self.made_as(cells)
        if made is not None:
            return [made]
        if not cells.size:
            return []
        runs = self.run_of()[cells]
        if (runs == runs[0]).all():
            return [int(runs[0])] if runs[0] >= GROUND else []
        return [int(run) for run in np.unique(runs) if run >= GROUND]

    def same(self, a: Cells, b: Cells) -> None:
        """Two lists of cells have the same units."""
        a, b = ravel(a), ravel(b)
        if a is b:
            return
        differ = a != b
        if differ.any():
            a, b = (a, b) if differ.all() else (a[differ], b[differ])
            self.ties.append(Tie(a, b))
            self.rows.append(Row(((1.0, b), (-1.0, a))))

    def hold(self, cells: Cells, reason: Reason) -> None:
        """Cells keep their unit altogether."""
        flat = ravel(cells)
        self.rigid.append((flat, reason))
        self.pinned.append((flat, reason))
        self.read.append(flat)
