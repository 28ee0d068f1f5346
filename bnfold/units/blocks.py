"""Cells in blocks: runs of channels that every operator carries together, so that the solver works on vectors.

Most tensors are one block: everything that touches them touches all of their channels in order. Where Concat, Split,
Slice, a shuffle or a broadcast cut them, cells are grouped by *lane*. A lane is a set of cells linked by equations (one
channel of a residual stream, say); two lanes with the same equations, operator by operator, belong to one family. In a
family the lanes are numbered, and the cells that stand at the same place of every lane form a block, aligned by that
number. So any permutation of channels becomes an alignment, and only cells that are tangled with themselves end up
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bnfold.units.affine import Array
from bnfold.units.layout import Cells
from bnfold.units.system import GROUND, System
from bnfold.units.window import Mask

Hash = NDArray[np.uint64]
Lanes = Array | float  # one number per lane of a block, or one for all


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
        self.system = system
        self.size = system.size
        bounds = np.asarray([*system.starts, system.size], dtype=np.int64)
        self._starts, self._stops = bounds[:-1], bounds[1:]
        lengths = self._stops - self._starts
        tangled = self._tangled_runs(system)
        whole = [i >= GROUND and n > 0 and not cut for i, (n, cut) in enumerate(zip(lengths, tangled, strict=True))]
        every_cell = np.arange(system.size, dtype=np.int64)
        self.cells: list[Cells] = [
            every_cell[start:stop]
            for start, stop, is_whole in zip(self._starts.tolist(), self._stops.tolist(), whole, strict=True)
            if is_whole
        ]
        number = np.where(whole, np.cumsum(whole) - 1, -1)  # the block that a run is, −1 for none
        self.block = np.repeat(number, lengths)
        self.lane = every_cell - np.repeat(self._starts, lengths)
        if any(tangled):
            self._cut_into_lanes(system, np.asarray(tangled))
            self._sort_by_age()
        first: list[int] = self.block[np.minimum(self._starts, system.size - 1)].tolist()
        made = [(id(array), system.made_as(array)) for array in system.arrays]
        self._known: dict[int, int] = {key: first[run] for key, run in made if run is not None and whole[run]}

    def _sort_by_age(self) -> None:
        """Number the blocks in the order in which their cells were made, which the solver's pivots rely on."""
        self.cells.sort(key=lambda cells: int(cells[0]))
        for number, cells in enumerate(self.cells):
            self.block[cells] = number

    def pieces(self, arrays: Sequence[Cells]) -> list[Piece]:
        """An equation between arrays of cells, block by block."""
        whole = [self._whole_block(array) for array in arrays]
        if None not in whole:
            blocks = tuple([number for number in whole if number is not None])
            return [Piece(blocks, None)] if max(blocks) >= 0 else []
        first = arrays[0]
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

    def of(self, cells: Cells) -> set[int]:
        """The blocks that some cells belong to."""
        number = self._whole_block(cells)
        if number is not None:
            return {number} if number >= 0 else set()
        return set(self.block[cells].tolist()) - {-1}

    @staticmethod
    def _repeats(index: NDArray[np.int64], size: int) -> Iterable[NDArray[np.int64]]:
        """An equation may hold several times between the same blocks: split it into rounds."""
        if size == 0 or len(index) == size:
            return [index]
        assert len(index) % size == 0, "every lane of a block takes part equally often"
        return list(index.reshape(size, -1).T)

    def _whole_block(self, array: Cells) -> int | None:
        """The block that an array is, cell by cell, or None."""
        known = self._known.get(id(array))
        if known is not None:
            return known
        if not array.size:
            return None
        number = int(self.block[array[0]])
        if number < 0:
            return -1 if bool((array < GROUND).all()) else None
        cells = self.cells[number]
        return number if len(cells) == array.size and np.array_equal(cells, array) else None

    def _whole_run(self, array: Cells) -> int | None:
        """The run of cells that an array is, or None; −1 where it touches none."""
        made = self.system.made_as(array)
        if made is not None:
            return made
        first = int(array[0]) if array.size else 0
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
            runs = [self._whole_run(array) for array in arrays]
            linked: list[int]
            if mixed is None and None not in runs:
                linked = [run for run in runs if run is not None and run >= 0]
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
        run_of = np.repeat(np.arange(len(self._starts)), self._stops - self._starts)
        member = tangled[run_of]
        inside = _side_by_side(system, lambda array: self._is_member(array, tangled, member))
        lane = _components(system.size, [link for group in inside for link in group.links()])
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
        for group in inside:
            code = group.number
            for array in group.arrays:
                code = _mix(code, slot[array])
            code = _mix(_mix(code, group.mark), np.uint64(2))
            for array in group.arrays:
                owner = array >= GROUND
                np.add.at(signature, lane[array[owner]], code[owner])
        self._form_blocks(order, lane, slot, signature)

    def _is_member(self, array: Cells, tangled: NDArray[np.bool_], member: NDArray[np.bool_]) -> bool:
        made = self.system.made_as(array)
        return bool(tangled[made] if made is not None else member[array].any())

    def _form_blocks(self, order: Cells, lane: Cells, slot: Hash, signature: Hash) -> None:
        """One block per family and slot, its cells sorted by lane."""
        by_place = np.lexsort((lane[order], slot[order], signature[lane[order]]))
        cells = order[by_place]
        key = np.stack([signature[lane[cells]], slot[cells]])
        changes = np.flatnonzero((key[:, 1:] != key[:, :-1]).any(axis=0)) + 1
        for block in np.split(cells, changes):
            self.lane[block] = np.arange(len(block))
            self.cells.append(block)


def some(values: Lanes | Mask | bool) -> bool:
    """Whether any lane is not 0."""
    return bool(np.count_nonzero(values)) if isinstance(values, np.ndarray) else bool(values)


def every(values: Lanes | Mask | bool) -> bool:
    """Whether no lane is 0."""
    return np.count_nonzero(values) == values.size if isinstance(values, np.ndarray) else bool(values)


def magnitude(values: Lanes) -> Lanes:
    """The absolute value, lane by lane."""
    return np.abs(values) if isinstance(values, np.ndarray) else abs(values)


def equations(system: System) -> Iterable[tuple[tuple[Cells, ...], NDArray[np.bool_] | None]]:
    """Every list of arrays whose elements belong together, with a mark per element that keeps lanes apart."""
    for tie in system.ties:
        yield (tie.a, tie.b), None
    for row in system.rows:
        yield tuple([cells for _, cells in row.terms]), None
    for cells, _ in chain(system.rigid, system.pinned):
        yield (cells,), None
    for cells in chain(system.positive, system.read, system.made):
        yield (cells,), None
    for candidate in system.candidates:
        zero = candidate.scale == 0
        yield (candidate.x, candidate.y), (zero if zero.any() and not zero.all() else None)


@dataclass(frozen=True)
class _Equations:
    """Elements of all equations with one number of operands, side by side.

    Attributes:
        number: uint64[n], the equation that an element belongs to.
        arrays: int64[n] per operand.
        mark: uint64[n], what keeps lanes apart in it.
    """

    number: Hash
    arrays: tuple[Cells, ...]
    mark: Hash

    def links(self) -> list[tuple[Cells, Cells]]:
        """Pairs of cells that belong together; those that keep their unit link nothing."""
        links = []
        for i, a in enumerate(self.arrays):
            for b in self.arrays[:i]:
                both = (a >= GROUND) & (b >= GROUND)
                links.append((a[both], b[both]))
        return links


def _side_by_side(system: System, wanted: Callable[[Cells], bool]) -> list[_Equations]:
    """The equations of which an operand is wanted, by their number of operands."""
    groups: dict[int, list[tuple[int, tuple[Cells, ...], Mask | None]]] = {}
    for number, (arrays, mixed) in enumerate(equations(system)):
        if any(wanted(array) for array in arrays):
            groups.setdefault(len(arrays), []).append((number, arrays, mixed))
    return [
        _Equations(
            np.repeat(np.array([number for number, _, _ in group], dtype=np.uint64), [len(a[0]) for _, a, _ in group]),
            tuple(np.concatenate([arrays[i] for _, arrays, _ in group]) for i in range(count)),
            np.concatenate([np.zeros(len(a[0]), np.uint64) if m is None else m.astype(np.uint64) for _, a, m in group]),
        )
        for count, group in groups.items()
    ]


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
