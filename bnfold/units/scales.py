"""Scale classes: a weighted union–find over blocks that can take steps back.

Every scale law is an equality `S_b = r ⊙ S_a`, so blocks fall into classes in which all scales follow from one. A class
is **grounded** where its scale is known (`S = 1` at a rigid value), and keeps for every lane the sign that ReLU and
MaxPool ask for. Two equalities that disagree are a refusal, never an exception.

A scale of 0 has no inverse, so it never stands in a ratio. A block that can only be read (`S = 0`, a constant) is its
class's `absolute` value 0; a block that can only be written (`R = 0`) is taken out of the game by the solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.blocks import Lanes, every, magnitude, some

Signs = NDArray[np.int8] | int

TOLERANCE = 1e-12  # two routes to one ratio differ by rounding only


@dataclass
class Class:
    """What is known of all blocks of one class, on its root.

    Attributes:
        absolute: float64[lanes] or one number for all, the scale of the root where it is known.
        sign: int8[lanes] or one number for all, the sign the root must have; 0 where it is free.
        made: Number of blocks that are produced by something that divides by the scale.
        needed: Number of blocks whose values must be recoverable: something reads them in their own unit.
        sunk: Whether all of its blocks are only written (`R = 0`), never read.
        shared: Whether the uses of one weight tie it together.
    """

    absolute: Lanes | None = None
    sign: Signs | None = None
    made: int = 0
    needed: int = 0
    sunk: bool = False
    shared: bool = False


class Scales:
    """Classes of blocks whose scales are proportional."""

    def __init__(self, blocks: int) -> None:
        self._parent = list(range(blocks))
        self._ratio: list[Array | None] = [None] * blocks  # S_block = ratio · S_parent
        self._weight = [1] * blocks
        self.classes = [Class() for _ in range(blocks)]
        self._log: list[Callable[[], None]] = []

    def mark(self) -> int:
        """A point to go back to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Undo everything since a mark."""
        while len(self._log) > mark:
            self._log.pop()()

    def find(self, block: int) -> tuple[int, Array | None]:
        """The root of a block's class, and its ratio to it (None for 1)."""
        ratio: Array | None = None
        while self._parent[block] != block:
            ratio = _times(ratio, self._ratio[block])
            block = self._parent[block]
        return block, ratio

    def _set(self, root: int, **values: object) -> None:
        state = vars(self.classes[root])
        self._log.append(partial(state.update, {name: state[name] for name in values}))
        state.update(values)

    def ground(self, block: int, scale: Lanes) -> Reason | None:
        """The scale of a block is known.

        Returns:
            None, or why it cannot be so.
        """
        root, ratio = self.find(block)
        wanted = scale if ratio is None else scale / ratio
        state = self.classes[root]
        if state.absolute is not None:
            clash = Reason.SHARED_WEIGHT if state.shared else Reason.SHARED_UNIT
            return None if _agree(state.absolute, wanted) else clash
        if state.sunk or (state.made and not every(wanted)):
            return Reason.ZERO_GAMMA
        if state.sign is not None and some(wanted * state.sign < 0):
            return Reason.NEGATIVE_GAMMA
        self._set(root, absolute=wanted)
        return None

    def positive(self, block: int) -> Reason | None:
        """The scale of a block must be positive (or 0)."""
        root, ratio = self.find(block)
        sign: Signs = 1 if ratio is None else np.sign(ratio).astype(np.int8)
        state = self.classes[root]
        if state.absolute is not None:
            return Reason.NEGATIVE_GAMMA if some(state.absolute * sign < 0) else None
        merged = sign if state.sign is None else _merge_signs(state.sign, sign)
        if merged is None:
            return Reason.NEGATIVE_GAMMA
        self._set(root, sign=merged)
        return None

    def add_made(self, block: int, count: int) -> None:
        """Count blocks that are produced by something that divides by the scale."""
        root, _ = self.find(block)
        self._set(root, made=self.classes[root].made + count)

    def add_needed(self, block: int, count: int) -> None:
        """Count blocks whose values must be recoverable."""
        root, _ = self.find(block)
        self._set(root, needed=self.classes[root].needed + count)

    def sink(self, block: int) -> Reason | None:
        """A block, and with it its class, is only written: nobody needs to recover its value.

        Returns:
            None, or why it cannot be so.
        """
        root, _ = self.find(block)
        state = self.classes[root]
        if state.needed or state.absolute is not None:
            return Reason.ZERO_GAMMA
        self._set(root, sunk=True)
        return None

    def is_sunk(self, block: int) -> bool:
        """Whether a block is only written."""
        return self.classes[self.find(block)[0]].sunk

    def mark_shared(self, block: int) -> None:
        """Note that a shared weight ties this class."""
        root, _ = self.find(block)
        self._set(root, shared=True)

    def union(self, a: int, b: int, ratio: Array | None) -> Reason | None:
        """Demand `S_b = ratio · S_a`, the ratio without zeros.

        Returns:
            None, or why it cannot be so; then nothing has changed.
        """
        root_a, to_a = self.find(a)
        root_b, to_b = self.find(b)
        between = _times(_times(ratio, to_a), None if to_b is None else 1.0 / to_b)  # S_root_b = between · S_root_a
        if root_a == root_b:
            if between is None or bool((np.abs(between - 1.0) <= TOLERANCE).all()):
                return None
            state = self.classes[root_a]
            if state.sign is not None and some((between < 0) & (state.sign != 0)):
                return Reason.NEGATIVE_GAMMA
            return Reason.SHARED_WEIGHT if state.shared else Reason.SHARED_UNIT
        if self._weight[root_a] < self._weight[root_b]:
            root_a, root_b = root_b, root_a
            between = None if between is None else 1.0 / between
        upper, lower = self.classes[root_a], self.classes[root_b]
        shared = upper.shared or lower.shared
        absolute = upper.absolute
        if lower.absolute is not None:
            seen = lower.absolute if between is None else lower.absolute / between
            if absolute is not None and not _agree(absolute, seen):
                opposite = some(absolute * seen < 0)
                sign_asked = upper.sign is not None or lower.sign is not None
                if opposite and sign_asked and _agree(magnitude(absolute), magnitude(seen)):
                    return Reason.NEGATIVE_GAMMA
                return Reason.SHARED_WEIGHT if shared else Reason.SHARED_UNIT
            absolute = seen if absolute is None else absolute
        made, needed, sunk = upper.made + lower.made, upper.needed + lower.needed, upper.sunk or lower.sunk
        if made and absolute is not None and not every(absolute):
            return Reason.ZERO_GAMMA
        if sunk and (needed or absolute is not None):
            return Reason.ZERO_GAMMA
        sign = upper.sign
        if lower.sign is not None:
            seen_sign: Signs = lower.sign if between is None else (lower.sign * np.sign(between)).astype(np.int8)
            sign = seen_sign if sign is None else _merge_signs(sign, seen_sign)
            if sign is None:
                return Reason.NEGATIVE_GAMMA
        if sign is not None and absolute is not None and some(absolute * sign < 0):
            return Reason.NEGATIVE_GAMMA
        self._set(root_a, absolute=absolute, sign=sign, made=made, needed=needed, sunk=sunk, shared=shared)
        self._link(root_b, root_a, between)
        return None

    def _link(self, child: int, parent: int, ratio: Array | None) -> None:
        def undo() -> None:
            self._parent[child], self._ratio[child] = child, None
            self._weight[parent] -= self._weight[child]

        self._parent[child], self._ratio[child] = parent, ratio
        self._weight[parent] += self._weight[child]
        self._log.append(undo)


def _times(a: Array | None, b: Array | None) -> Array | None:
    if a is None:
        return b
    return a if b is None else a * b


def _agree(a: Lanes, b: Lanes) -> bool:
    return every(magnitude(a - b) <= TOLERANCE * np.maximum(magnitude(a), magnitude(b))) if a is not b else True


def _merge_signs(a: Signs, b: Signs) -> Signs | None:
    if some(a * b < 0):
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a or b
    return np.where(a != 0, a, b).astype(np.int8)
