"""Cells in blocks: runs of channels that every operator carries together, so that the solver works on vectors.

Most tensors are one block: everything that touches them touches all of their channels in order. Where Concat, Split,
Slice, a shuffle or a broadcast cut them, cells are grouped by *lane*. A lane is a set of cells linked by equations (one
channel of a residual stream, say); two lanes with the same equations, operator by operator, belong to one family. In a
family the lanes are numbered, and the cells that stand at the same place of every lane form a block, aligned by that
number. So any permutation of channels becomes an alignment, and only cells that are tangled with themselves end up
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnfold.layout import Cells
from bnfold.system import GROUND, System

Hash = NDArray[np.uint64]


@dataclass(frozen=True)
class Piece:
    """A part of an equation that holds for whole blocks.

    Attributes:
        blocks: One block per operand; −1 where the operand keeps its unit (a cell below `GROUND`).
        index: Positions of the equation's arrays, in the order of the blocks' lanes; None for all of them in order.
    """

    blocks: tuple[int, ...]
    index: NDArray[np.int64] | None


class Blocks:
    """The partition of a system's cells.

    Attributes:
        cells: For each block, its cells in lane order.
        block: int64[cells], the block of each cell; −1 below `GROUND`.
        lane: int64[cells], its place in the block.
    """

    def __init__(self, system: System) -> None:
        self.size = system.size
        bounds = np.asarray([*system.starts[GROUND:], system.size], dtype=np.int64)
        self._starts, self._stops = bounds[:-1], bounds[1:]
        tangled = self._tangled_runs(system)
        self.cells: list[Cells] = []
        self.block = np.full(system.size, -1, dtype=np.int64)
        self.lane = np.zeros(system.size, dtype=np.int64)
        for start, stop, cut in zip(self._starts.tolist(), self._stops.tolist(), tangled, strict=True):
            if not cut and stop > start:
                self._add(np.arange(start, stop, dtype=np.int64))
        if any(tangled):
            self._cut_into_lanes(system, np.asarray(tangled))
            self._sort_by_age()

    def _add(self, cells: Cells) -> None:
        self.block[cells] = len(self.cells)
        self.lane[cells] = np.arange(len(cells))
        self.cells.append(cells)

    def _sort_by_age(self) -> None:
        """Number the blocks in the order in which their cells were made, which the solver's pivots rely on."""
        self.cells.sort(key=lambda cells: int(cells[0]))
        for number, cells in enumerate(self.cells):
            self.block[cells] = number

    def pieces(self, arrays: Sequence[Cells]) -> list[Piece]:
        """An equation between arrays of cells, block by block."""
        first = arrays[0]
        whole = tuple(self._whole_block(array) for array in arrays)
        if all(number == -1 for number in whole):
            return []
        if all(number is not None for number in whole):
            return [Piece(tuple(number for number in whole if number is not None), None)]
        numbers = np.stack([self.block[array] for array in arrays])
        lanes = np.stack([np.where(n < 0, -1, self.lane[a]) for n, a in zip(numbers, arrays, strict=True)]).max(axis=0)
        if not (numbers >= 0).any():
            return []
        order = np.lexsort((np.arange(len(first)), lanes, *numbers[::-1]))
        numbers = numbers[:, order]
        changes = np.flatnonzero((numbers[:, 1:] != numbers[:, :-1]).any(axis=0)) + 1
        result = []
        for index in np.split(order, changes):
            blocks = tuple(int(self.block[array[index[0]]]) for array in arrays)
            if max(blocks) < 0:
                continue
            size = max(len(self.cells[b]) for b in blocks if b >= 0) if any(b >= 0 for b in blocks) else 0
            for copy in self._repeats(index, size):
                result.append(Piece(blocks, copy))
        return result

    @staticmethod
    def _repeats(index: NDArray[np.int64], size: int) -> Iterable[NDArray[np.int64]]:
        """An equation may hold several times between the same blocks: split it into rounds."""
        if size == 0 or len(index) == size:
            return [index]
        assert len(index) % size == 0, "every lane of a block takes part equally often"
        return list(index.reshape(size, -1).T)

    def _whole_block(self, array: Cells) -> int | None:
        """The block that an array is, cell by cell, or None."""
        number = int(self.block[array[0]]) if array.size else -1
        if number < 0:
            return -1 if array.size and bool((array < GROUND).all()) else None
        cells = self.cells[number]
        if len(cells) != array.size:
            return None
        return number if cells is array or np.array_equal(cells, array) else None

    def _whole_run(self, array: Cells) -> int | None:
        """The run of cells that an array is, or None; −1 where it touches none."""
        first = int(array[0])
        if first < GROUND:
            return -1 if bool((array < GROUND).all()) else None
        run = int(np.searchsorted(self._starts, first, side="right")) - 1
        start, stop = int(self._starts[run]), int(self._stops[run])
        if first != start or array.size != stop - start:
            return None
        return run if bool((array == np.arange(start, stop)).all()) else None

    def _tangled_runs(self, system: System) -> list[bool]:
        """Which runs of cells are not carried as a whole, they or something they are linked with."""
        parent = list(range(len(self._starts)))
        cut = [False] * len(parent)

        def find(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for arrays, mixed in equations(system):
            runs = [self._whole_run(a) if a.size else -1 for a in arrays]
            if mixed is None and all(r is not None for r in runs):
                linked = [r for r in runs if r is not None and r >= 0]
            else:
                touched = np.concatenate(list(arrays))
                touched = touched[touched >= GROUND]
                linked = np.unique(np.searchsorted(self._starts, touched, side="right") - 1).tolist()
                for run in linked:
                    cut[find(run)] = True
            for run in linked[1:]:
                a, b = find(linked[0]), find(run)
                if a != b:
                    parent[b] = a
                    cut[a] = cut[a] or cut[b]
        return [cut[find(i)] for i in range(len(parent))]

    def _cut_into_lanes(self, system: System, tangled: NDArray[np.bool_]) -> None:
        """Group the cells of tangled runs into families of equal lanes."""
        runs = np.repeat(np.arange(len(self._starts)), self._stops - self._starts)
        member = np.concatenate([np.zeros(GROUND, dtype=np.bool_), tangled[runs]])
        run_of = np.concatenate([np.full(GROUND, -1), runs])
        inside = [
            (number, arrays, mixed)
            for number, (arrays, mixed) in enumerate(equations(system))
            if any(member[a].any() for a in arrays)
        ]
        lane = _components(system.size, [pair for _, arrays, _ in inside for pair in _links(arrays)])
        cells = np.flatnonzero(member)
        order = cells[np.lexsort((cells, run_of[cells], lane[cells]))]
        key = np.stack([lane[order], run_of[order]])
        new_group = np.concatenate([[True], (key[:, 1:] != key[:, :-1]).any(axis=0)])
        group_start = np.maximum.accumulate(np.where(new_group, np.arange(len(order)), 0))
        slot = np.zeros(system.size, dtype=np.uint64)  # which of the lane's cells in its run this is
        slot[order] = _mix(run_of[order].astype(np.uint64), (np.arange(len(order)) - group_start).astype(np.uint64))
        slot[:GROUND] = _mix(np.full(GROUND, 2**40, dtype=np.uint64), np.arange(GROUND, dtype=np.uint64))
        signature = np.zeros(system.size, dtype=np.uint64)
        np.add.at(signature, lane[order], _mix(slot[order], np.uint64(1)))
        for number, arrays, mixed in inside:
            code = np.full(len(arrays[0]), number, dtype=np.uint64)
            for array in arrays:
                code = _mix(code, slot[array])
            if mixed is not None:
                code = _mix(code, mixed.astype(np.uint64))
            for array in arrays:
                owner = array >= GROUND
                np.add.at(signature, lane[array[owner]], _mix(code[owner], np.uint64(2)))
        self._form_blocks(order, lane, slot, signature)

    def _form_blocks(self, order: Cells, lane: Cells, slot: Hash, signature: Hash) -> None:
        """One block per family and slot, its cells sorted by lane."""
        by_place = np.lexsort((lane[order], slot[order], signature[lane[order]]))
        cells = order[by_place]
        key = np.stack([signature[lane[cells]], slot[cells]])
        changes = np.flatnonzero((key[:, 1:] != key[:, :-1]).any(axis=0)) + 1
        for block in np.split(cells, changes):
            self._add(block)


def equations(system: System) -> Iterable[tuple[tuple[Cells, ...], NDArray[np.bool_] | None]]:
    """Every list of arrays whose elements belong together, with a mark per element that keeps lanes apart."""
    for tie in system.ties:
        yield (tie.a, tie.b), None
    for row in system.rows:
        yield tuple(cells for _, cells in row.terms), None
    for cells in system.positive:
        yield (cells,), None
    for cells, _ in system.rigid:
        yield (cells,), None
    for cells, _ in system.pinned:
        yield (cells,), None
    for cells in system.read:
        yield (cells,), None
    for cells in system.made:
        yield (cells,), None
    for candidate in system.candidates:
        zero = candidate.scale == 0
        yield (candidate.x, candidate.y), (zero if zero.any() and not zero.all() else None)


def _links(arrays: Sequence[Cells]) -> list[tuple[Cells, Cells]]:
    """Neighbouring operands of an equation, without those that keep their unit."""
    links = []
    for i in range(len(arrays)):
        for j in range(i):
            both = (arrays[i] >= GROUND) & (arrays[j] >= GROUND)
            links.append((arrays[i][both], arrays[j][both]))
    return links


def _components(size: int, links: Sequence[tuple[Cells, Cells]]) -> Cells:
    """The smallest cell of each connected component, for every cell."""
    label = np.arange(size, dtype=np.int64)
    if not links:
        return label
    a = np.concatenate([x for x, _ in links])
    b = np.concatenate([y for _, y in links])
    while True:
        low = np.minimum(label[a], label[b])
        before = label.copy()
        np.minimum.at(label, label[a], low)
        np.minimum.at(label, label[b], low)
        np.minimum.at(label, a, low)
        np.minimum.at(label, b, low)
        while True:  # halve the paths
            shorter = label[label]
            if np.array_equal(shorter, label):
                break
            label = shorter
        if np.array_equal(before, label):
            return label


def _mix(a: Hash, b: Hash | np.uint64) -> Hash:
    """A well-spread 64-bit hash of two numbers (the finaliser of splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = (a + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9) ^ b * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: Hash = z ^ (z >> np.uint64(31))
        return result
