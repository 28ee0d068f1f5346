"""Carrying out branch merges on an exported program: one convolution or matrix product where a sum of branches was.

The result stands where the operator that multiplies most was, and has a weight of its own: what else reads the old
ones keeps them. Operands that stay are added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import torch
from torch import fx

from bnfold.branches.search import Merge, MergedSum, find_merges
from bnfold.branches.taps import Branch
from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.editor import Editor
from bnfold.frontends.aten.linear import stored_bias, weight_position
from bnfold.frontends.aten.nodes import argument, fake, places_of, results
from bnfold.frontends.aten.program import Reading
from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.graph import Linear, Rigid, Value
from bnfold.units.window import Window

ADD, SUB = torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor
LINEAR, MATMUL = torch.ops.aten.linear.default, torch.ops.aten.matmul.default
PAD = torch.ops.aten.constant_pad_nd.default


def merges_of(
    reading: Reading, may_go: Callable[[Value, Value, Sequence[Branch]], bool] | None = None
) -> tuple[MergedSum, ...]:
    """The branch merges that a program allows.

    Args:
        reading: The program.
        may_go: Whether an operand, by its source, its value and its branches, may be merged.
    """
    context = reading.context
    nodes = nodes_by_label(context)
    return find_merges(reading.graph, held_values(reading), lambda op: _bias(op, nodes[op.name], context), may_go)


def held_values(reading: Reading) -> set[Value]:
    """Values that cannot vanish: not exactly one operator reads them, it hands them out, or a hook looks at them."""
    held: set[Value] = set()
    for node in reading.context.graph.nodes:
        readers = [user for user in node.users for _ in places_of(user, node) or (None,)]
        if len(readers) != 1 or readers[0].op == "output":
            held.add(node)
    for op in reading.graph.ops:
        if isinstance(op, Rigid) and op.reason is Reason.HOOK:
            held.update(op.xs)
    return held


def nodes_by_label(context: Context) -> dict[str, fx.Node]:
    """The node behind every operator of the solver's graph."""
    return {label: node for node, label in context.labels.items()}


def _bias(op: Linear, node: fx.Node, context: Context) -> Array | None:
    """What a linear operator adds per channel; None where it must stay."""
    if node.name in context.held:
        return None
    channels = op.kernel.out_channels
    bias, _ = stored_bias(node, context)
    if bias is None:
        return np.zeros(channels)
    return np.broadcast_to(bias, channels) if bias.size in (1, channels) else None


class Merger:
    """One program whose branches are merged.

    Args:
        editor: The program; changed.
        reading: What was read of it.
        places: For the operators of a merge, the one whose module the result is said to be made in; that which
            multiplies most where none is given.
    """

    def __init__(self, editor: Editor, reading: Reading, places: Mapping[tuple[str, ...], str] | None = None) -> None:
        self.editor, self.context = editor, reading.context
        self.places = places or {}
        self.ops = {op.name: op for op in reading.graph.ops}
        self.nodes = nodes_by_label(reading.context)
        self._weights: dict[tuple[Hashable, ...], list[tuple[Merge, fx.Node, fx.Node | None]]] = {}
        self._unfilled: list[tuple[Merge, fx.Node, tuple[torch.Tensor, bool]]] = []
        self._successors: dict[fx.Node, fx.Node] = {}  # of sums that have been merged

    def run(self, sums: Sequence[MergedSum]) -> None:
        """Put every merged sum in its tree's place, inner trees first."""
        for merged in reversed(sums):
            self._replace(merged)
        for merge, made, stored in self._unfilled:  # once what the branches held is gone, and its names are free
            self._fill(merge, made, stored)

    def _replace(self, merged: MergedSum) -> None:
        root = merged.result
        assert isinstance(root, fx.Node)
        gone = [self.nodes[name] for name in (*merged.adds, *(n for merge in merged.merges for n in merge.names))]
        made = [self._operator(merge) for merge in merged.merges]
        stored = [self._stored(merge) for merge in merged.merges]
        at, total = root, made[0]
        for value, factor in [*((part, 1.0) for part in made[1:]), *merged.rest]:
            operands = (total, self._now(value))
            target = ADD if factor > 0 else SUB
            at = total = self.editor.insert(at, target, operands, root, self.editor.estimate(target, operands))
        self._successors[root] = total
        self.editor.replace(root, total)
        for node in gone:
            self.editor.vanish(node)
        self.editor.drop([root, *(value for node in gone for value in (node, *results(node)))])
        labels = self.context.labels
        for node in [node for node in labels if node._erased]:
            del labels[node]
        for merge, linear, like in zip(merged.merges, made, stored, strict=True):
            labels[linear] = self.places.get(merge.names, merge.box.main.name)
            self._unfilled.append((merge, linear, like))
        labels.setdefault(total, merged.adds[0])

    def _now(self, value: Value) -> fx.Node:
        """A value of the program that was read, as it is by now."""
        assert isinstance(value, fx.Node)
        return self._successors.get(value, value)

    def _stored(self, merge: Merge) -> tuple[torch.Tensor, bool]:
        """The weight of the operator that multiplies most, for its type and device, and whether it trains."""
        main = self.nodes[merge.box.main.name]
        old = argument(main, weight_position(main, self.context))
        assert isinstance(old, fx.Node)
        like, stored = fake(old), self.context.tensors.get(old)
        assert like is not None
        return like, stored is None or stored.requires_grad

    def _operator(self, merge: Merge) -> fx.Node:
        """The operator that a merge leaves, its weight and bias still missing.

        It stands among the operators of its module: a program that is unflattened is cut where calls of modules end.
        """
        source, window = self._now(merge.source), merge.box.window
        at = like = self.nodes[self.places.get(merge.names, merge.box.main.name)]
        assert isinstance(merge.like, fx.Node)
        if window is None:
            from_left = weight_position(self.nodes[merge.box.main.name], self.context) == (0,)
            operands = (None, source) if from_left else (source, None, None)
            return self.editor.insert(at, MATMUL if from_left else LINEAR, operands, like, fake(merge.like))
        padding = window.pads_begin
        if padding != window.pads_end:
            at = source = self._padded(source, window, at, like)
            padding = (0,) * len(padding)
        slides = [list(v) for v in (window.strides, padding, window.dilations)]
        target = getattr(torch.ops.aten, f"conv{len(padding)}d").default
        args = (source, None, None, *slides, merge.box.groups)
        return self.editor.insert(at, target, args, like, fake(merge.like))

    def _padded(self, source: fx.Node, window: Window, at: fx.Node, like: fx.Node) -> fx.Node:
        """Zeros around a value, which a convolution cannot add where they are not as many on both sides."""
        sides = zip(reversed(window.pads_begin), reversed(window.pads_end), strict=True)
        args = (source, [n for pair in sides for n in pair])
        return self.editor.insert(at, PAD, args, like, self.editor.estimate(PAD, args))

    def _fill(self, merge: Merge, made: fx.Node, stored: tuple[torch.Tensor, bool]) -> None:
        """Give an operator its weight and bias; branches that shared all of their weights share the sum as well."""
        linears = tuple(op.weight for name in merge.names if isinstance(op := self.ops[name], Linear))
        known = self._weights.setdefault(linears, [])
        twin = next(((w, b) for other, w, b in known if _has_same_numbers(other, merge)), None)
        weight, bias = twin or self._parameters(merge, made, *stored)
        known.append((merge, weight, bias))
        if made.target is not MATMUL:
            made.args = (made.args[0], weight, bias, *made.args[3:])
            return
        made.args = (weight, made.args[1])
        if bias is not None:
            added = self.editor.insert(made, ADD, (made, bias), made)
            self.editor.replace(made, added, added)

    def _parameters(
        self, merge: Merge, made: fx.Node, like: torch.Tensor, trains: bool
    ) -> tuple[fx.Node, fx.Node | None]:
        weight = self.editor.parameter(merge.weight, like, made, "weight", trains)
        if not merge.bias.any():
            return weight, None
        rank = len(self.context.shapes[merge.like])
        shape = (-1,) + ((1,) * (rank - 1 - merge.box.main.y_axis) if made.target is MATMUL else ())
        return weight, self.editor.parameter(merge.bias.reshape(shape), like, made, "bias", trains)


def _has_same_numbers(a: Merge, b: Merge) -> bool:
    return np.array_equal(a.weight, b.weight) and np.array_equal(a.bias, b.bias)
