"""Parallel branches of one tensor become one linear operator: where in a graph that is so.

The operands of a tree of Adds and Subs are followed back, through values that nothing else reads, to the tensors they
are linear in. Where several are of the same tensor, and one operator can hold them without multiplying more
(`box.box_of`), they are merged; what is left of the tree is added to the result. The shape of the graph decides, never
a name. A branch that is no constant `affine ∘ linear ∘ affine`, or whose value is needed elsewhere, stays an operand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.branches.box import Box, groupings
from bnfold.branches.taps import Branch, Diagonal, diagonal, sign
from bnfold.units.affine import Array, round_once
from bnfold.units.graph import Add, Affine, Graph, Linear, Op, Reshape, Spatial, Value

LONGEST = 24  # operators that a branch is followed back over

Forms = dict[Value, tuple[Branch, ...]]
MayGo = Callable[[Value, Value, Sequence[Branch]], bool]


@dataclass(frozen=True)
class Merge:
    """Operands that become one operator.

    Attributes:
        source: The tensor they are all linear in.
        box: The operator.
        weight: [out, in/groups, *taps], rounded to the stored dtype.
        bias: [out], likewise.
        names: The operators that go.
        operands: The operands of the sum that it takes the place of, with their signs.
    """

    source: Value
    box: Box
    weight: NDArray[Any]
    bias: NDArray[Any]
    names: tuple[str, ...]
    operands: tuple[tuple[Value, float], ...]

    @property
    def like(self) -> Value:
        """A value that has the shape of the result."""
        return self.operands[0][0]


@dataclass(frozen=True)
class MergedSum:
    """A tree of Adds and Subs with less in it.

    Attributes:
        result: The value it computes.
        adds: The operators of the tree, all of which go.
        merges: What is summed now,
        rest: and the other operands, with their signs.
    """

    result: Value
    adds: tuple[str, ...]
    merges: tuple[Merge, ...]
    rest: tuple[tuple[Value, float], ...]


def find_merges(
    graph: Graph,
    held: Collection[Value],
    bias: Callable[[Linear], Array | None],
    may_go: MayGo | None = None,
) -> tuple[MergedSum, ...]:
    """All branch merges of a graph; they do not overlap.

    Args:
        graph: The model as the solver sees it.
        held: Values that must stay, because they leave the graph or not exactly one operator reads them.
        bias: The bias of a Linear as float64[out_channels]; None where that is not what it has, and it must stay.
        may_go: Whether an operand of a sum may be merged, by its source, its value and its branches; all if None.
    """
    return tuple(Search(graph, held, bias, may_go=may_go).sums())


def may_merge(graph: Graph, held: Collection[Value], vanished: Collection[str]) -> bool:
    """Whether there could be something to merge once these affines have vanished; no weight is looked at."""
    return any(True for _ in Search(graph, held, lambda op: np.zeros(1), vanished).sums())


class Search:
    """One graph being searched."""

    def __init__(
        self,
        graph: Graph,
        held: Collection[Value],
        bias: Callable[[Linear], Array | None],
        vanished: Collection[str] | None = None,
        may_go: MayGo | None = None,
    ) -> None:
        self.graph = graph
        self.bias = bias
        self.may_go = may_go
        self.makers: dict[Value, Op] = {}
        self.alias: dict[Value, Value] = {}
        self.trusting = vanished is not None
        for op in graph.ops:
            if isinstance(op, Affine) and op.name in (vanished or ()):
                self.alias[op.y] = self.same(op.x)
            elif isinstance(op, Add | Affine | Linear | Spatial | Reshape):
                self.makers[op.y] = op
        self.held = {self.same(value) for value in held}
        self._gone: set[str] = set()

    def same(self, value: Value) -> Value:
        """The value that a value is when vanished affines are left out."""
        return self.alias.get(value, value)

    def sums(self) -> Sequence[MergedSum]:
        """Trees that get smaller, from the last one to the first: an outer tree may hold inner ones."""
        found: list[MergedSum] = []
        for op in reversed(self.graph.ops):
            if isinstance(op, Add) and op.name not in self._gone:
                merged = self._tree(op)
                found += [] if merged is None else [merged]
        return found

    def _tree(self, root: Add) -> MergedSum | None:
        """The tree of Adds and Subs under a root, merged as far as it can be."""
        operands: list[tuple[Value, float]] = []
        adds: list[str] = []
        stack: list[tuple[Value, float]] = [(root.y, 1.0)]
        while stack:
            value, factor = stack.pop()
            op = self.makers.get(value)
            if isinstance(op, Add) and (op is root or value not in self.held):
                adds.append(op.name)
                stack += [(self.same(op.b), factor * op.sign), (self.same(op.a), factor)]
            else:
                operands.append((value, factor))
        self._gone.update(adds)
        sources = [self.sources(value) for value, _ in operands]
        if len(set().union(*sources)) == sum(map(len, sources)):  # no two operands come from one tensor
            return None
        merges = []
        forms = [self._signed(self._allowed(value), factor) for value, factor in operands]
        while (chosen := self._best(forms)) is not None:
            source, members, box = chosen
            branches = [branch for i in members for branch in forms[i][source]]
            merge = self._merge(source, box, branches, tuple(operands[i] for i in members))
            if merge is None:
                for i in members:
                    del forms[i][source]
                continue
            merges.append(merge)
            self._gone.update(merge.names)
            operands = [operand for i, operand in enumerate(operands) if i not in members]
            forms = [form for i, form in enumerate(forms) if i not in members]
        return MergedSum(root.y, tuple(adds), tuple(merges), tuple(operands)) if merges else None

    def sources(self, value: Value, left: int = LONGEST) -> set[Value]:
        """The tensors that `forms` may find; no branch is looked at, which is what takes long."""
        op = self._absorbed(value, left)
        if op is None:
            return {value}
        operands = (op.a, op.b) if isinstance(op, Add) else (op.x,)  # type: ignore[attr-defined]
        return {value, *set.intersection(*(self.sources(self.same(v), left - 1) for v in operands))}

    def _absorbed(self, value: Value, left: int) -> Op | None:
        """The operator behind a value, where it can become part of a branch."""
        return None if value in self.held or not left else self.makers.get(value)

    def _allowed(self, value: Value) -> Forms:
        """What an operand is a sum of branches of, where it may go."""
        found, may_go = self.forms(value), self.may_go
        if may_go is None:
            return found
        return {source: branches for source, branches in found.items() if may_go(source, value, branches)}

    def forms(self, value: Value, left: int = LONGEST) -> Forms:
        """The tensors that a value is a sum of branches of, itself first, as far back as nothing else reads them."""
        found: Forms = {value: (Branch(),)}
        op = self._absorbed(value, left)
        if op is None:
            return found
        if isinstance(op, Add):
            first, second = (self.forms(self.same(v), left - 1) for v in (op.a, op.b))
            second = self._signed(second, op.sign)
            for source in first:
                if source in second:
                    head, *others = first[source]
                    head = replace(head, names=(*head.names, op.name))
                    found[source] = (head, *others, *second[source])
            return found
        for source, branches in self.forms(self.same(op.x), left - 1).items():  # type: ignore[attr-defined]
            extended = self._extended(op, branches)
            if extended is not None:
                found[source] = extended
        return found

    def _extended(self, op: Op, branches: tuple[Branch, ...]) -> tuple[Branch, ...] | None:
        """A sum of branches, and then an operator."""
        if isinstance(op, Reshape):
            before, after = (self.graph.shapes.get(v) for v in (op.x, op.y))
            head = replace(branches[0], names=(*branches[0].names, op.name))
            return (head, *branches[1:]) if before is not None and before == after else None
        if isinstance(op, Affine):
            affine = diagonal(op, len(self.graph.shapes[op.y]))
            if affine is None:
                return None
            shiftless = Diagonal(affine.scale, np.zeros(1), affine.axis)
            scaled = [branches[0].scaled(affine, op.name), *(b.scaled(shiftless) for b in branches[1:])]
            return None if any(b is None for b in scaled) else tuple(b for b in scaled if b is not None)
        if len(branches) > 1:
            return None
        extended = None
        if isinstance(op, Linear):
            bias = self.bias(op)
            extended = None if bias is None else branches[0].through(op, bias, self.trusting)
        elif isinstance(op, Spatial) and op.window is not None:
            extended = branches[0].through(op, None, self.trusting)
        return None if extended is None else (extended,)

    @staticmethod
    def _signed(forms: Forms, factor: float) -> Forms:
        if factor == 1:
            return forms
        return {
            source: tuple(signed for b in branches if (signed := b.scaled(sign(factor))) is not None)
            for source, branches in forms.items()
        }

    def _best(self, forms: Sequence[Forms]) -> tuple[Value, list[int], Box] | None:
        """The operands that are best merged: most of them, then fewest multiplications, then most operators."""
        best, score = None, (0, 0, 0)
        sources: dict[Value, list[int]] = {}
        for i, form in enumerate(forms):
            for source in form:
                sources.setdefault(source, []).append(i)
        for source, members in sources.items():
            operands = [forms[i][source] for i in members]
            for group, box in groupings(operands, self._channels(source, operands)):
                branches = [branch for i in group for branch in operands[i]]
                saved = sum(b.multiplies for b in branches) - box.multiplies
                here = (len(group), saved, sum(len(b.names) for b in branches))
                if here > score:
                    best, score = (source, [members[i] for i in group], box), here
        return best

    def _channels(self, source: Value, operands: Sequence[Sequence[Branch]]) -> int | None:
        """Number of channels of a tensor, where its branches read them."""
        axis = next((b.op.x_axis for branches in operands for b in branches if isinstance(b.op, Linear)), None)
        shape = self.graph.shapes.get(source)
        size = None if axis is None or shape is None else shape[axis]
        return size if isinstance(size, int) else None

    def _merge(
        self, source: Value, box: Box, branches: Sequence[Branch], operands: tuple[tuple[Value, float], ...]
    ) -> Merge | None:
        """The operator in numbers; None where they do not fit the stored dtype."""
        names = tuple(name for branch in branches for name in branch.names)
        if self.trusting:
            return Merge(source, box, np.zeros(0), np.zeros(0), names, operands)
        dtype = box.main.kernel.weight().dtype
        weight, bias = (round_once(array, dtype) for array in box.total(branches))
        if not all(np.isfinite(array).all() for array in (weight, bias)):
            return None
        return Merge(source, box, weight, bias, names, operands)
