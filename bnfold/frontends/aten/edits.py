"""A plan as edits to the nodes of a program: which constants get which numbers, and which nodes go.

What an operator becomes follows from the units on its two sides alone (`affine.rewrite`). Nothing is changed here: the
edits are carried out on a program by `rewrite`, on a module by `modules.map`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.linear import (
    CONVOLUTIONS,
    bias_position,
    stored_bias,
    weight_position,
)
from bnfold.frontends.aten.nodes import (
    BATCH_NORMS,
    Place,
    arguments,
    fake,
    opname,
    places_of,
    position,
    sole_result,
)
from bnfold.frontends.aten.normalisations import CHANNEL_AXIS
from bnfold.frontends.aten.recurrent import RECURRENT, input_weights
from bnfold.frontends.rewrite import dense
from bnfold.planning.economy import between_units
from bnfold.planning.leftover import is_split
from bnfold.planning.plan import Folding
from bnfold.planning.reach import Misfits, is_tame
from bnfold.units.affine import Array, Unit, rewrite
from bnfold.units.graph import Graph, Linear, Op
from bnfold.units.solver import Solution
from bnfold.units.system import System


@dataclass(frozen=True)
class Edits:
    """Everything that a plan changes in a program.

    Attributes:
        gone: Nodes that do nothing any more; their readers read their first feature.
        operands: New numbers for constant arguments, float64 or of the stored type, also where none was given.
        replaced: Scale and shift of an affine that stays, each None where it does nothing.
        added: A constant to add behind a node that has no argument for it.
        depthwise: Weight and bias of the depthwise convolution that a BatchNorm becomes.
    """

    gone: tuple[fx.Node, ...] = ()
    operands: dict[tuple[fx.Node, Place], NDArray[Any]] = field(default_factory=dict)
    replaced: dict[fx.Node, tuple[Array | None, Array | None]] = field(default_factory=dict)
    added: dict[fx.Node, Array] = field(default_factory=dict)
    depthwise: dict[fx.Node, tuple[Array, Array | None]] = field(default_factory=dict)


def find_misfits(context: Context, leftover: str, graph: Graph, system: System, solution: Solution) -> Misfits:
    """The views whose new numbers would not be finite as they are stored.

    Args:
        context: What the readers knew.
        leftover: What a BatchNorm that stays is written as (`bnfold.planning.leftover`).
        graph: The program as the solver saw it.
        system: The cells behind every operator's channels.
        solution: The unit of every cell.
    """
    halves = any(value.dtype.itemsize < 4 for n in context.graph.nodes if (value := fake(n)) is not None)
    if not halves and is_tame(solution):
        return Misfits()
    finder = _Finder(graph, system, solution, context, leftover).find()
    too_large = [node for (node, _), array in finder.operands.items() if not _fits(array, node)]
    too_large += [node for node, array in finder.added.items() if not _fits(array, node)]
    for node, pair in finder.replaced.items():
        too_large += [node for array in pair if array is not None and not _fits(array, node)]
    return Misfits(tuple(dict.fromkeys(context.label(node) for node in too_large)))


def _fits(array: NDArray[Any], node: fx.Node) -> bool:
    y = sole_result(node)
    value = None if y is None else fake(y)
    if value is None or array.dtype != np.float64 or not value.is_floating_point():
        return bool(np.isfinite(array).all())
    return bool(np.isfinite(array).all() and np.abs(array).max(initial=0.0) <= torch.finfo(value.dtype).max)


def find_edits(
    folding: Folding, context: Context, constant_norms: Sequence[fx.Node] = (), leftover: str = "keep"
) -> Edits:
    """What a plan means for each node of a program.

    Args:
        folding: The plan and its units.
        context: What the readers knew.
        constant_norms: BatchNorms of constants; what becomes of them is stored in their place.
        leftover: What a BatchNorm that stays is written as (`bnfold.planning.leftover`).
    """
    finder = _Finder(folding.graph, folding.system, folding.solution, context, leftover).find()
    removed = folding.solution.removed
    gone = tuple(n for n in context.graph.nodes if context.label(n) in removed and opname(n) not in CHANNEL_AXIS)
    finder.store(constant_norms)
    return Edits(gone, finder.operands, finder.replaced, finder.added, finder.depthwise)


def renewable(edits: Edits, context: Context, stored: fx.Node) -> NDArray[Any] | None:
    """The new numbers of a stored constant if all of its readers get the same ones; None where they part.

    Args:
        edits: What is to change.
        context: What the readers knew.
        stored: A placeholder.
    """
    arrays: list[NDArray[Any]] = []
    for alias in {stored, *context.aliases(stored)}:
        for user in alias.users:
            for place in places_of(user, alias) or [(-1,)]:
                array = edits.operands.get((user, place))
                if array is None:
                    return None
                arrays.append(array)
    if not arrays or context.entangled(stored) or arrays[0].shape != tuple(context.tensors[stored].shape):
        return None
    like = context.tensors[stored]
    same = all(a is arrays[0] or nearly_equal(a, arrays[0], like.dtype) for a in arrays[1:])
    return arrays[0] if same else None


def nearly_equal(a: NDArray[Any], b: NDArray[Any], dtype: torch.dtype) -> bool:
    """Whether two ways to compute the same numbers agree: equal but for the last bits of what will be stored."""
    wide, other = a.astype(np.float64), b.astype(np.float64)
    if wide.shape != other.shape:
        return False
    size = np.maximum(np.abs(wide), np.abs(other)).max(initial=0.0)
    return bool((np.abs(wide - other) <= 4 * torch.finfo(dtype).eps * size).all())


class _Finder:
    """Walks over the nodes of a program and notes what changes."""

    def __init__(self, graph: Graph, system: System, solution: Solution, context: Context, leftover: str) -> None:
        self.system, self.solution, self.leftover = system, solution, leftover
        self.context = context
        self.ops: Mapping[str, Op] = {op.name: op for op in graph.ops}
        self.candidates = {c.op.name: c for c in system.candidates}
        self.operands: dict[tuple[fx.Node, Place], NDArray[Any]] = {}
        self.replaced: dict[fx.Node, tuple[Array | None, Array | None]] = {}
        self.added: dict[fx.Node, Array] = {}
        self.depthwise: dict[fx.Node, tuple[Array, Array | None]] = {}

    def find(self) -> _Finder:
        """Ask every operator whose numbers may change."""
        for node in self.context.graph.nodes:
            handler = HANDLERS.get(opname(node))
            if handler is not None and not self.context.is_const(node):
                handler(self, node, self.context.label(node))
        return self

    def units(self, name: str) -> tuple[Unit, Unit] | None:
        """The units on both sides of an operator; None where both are as they were."""
        view = self.system.views.get(name)
        if view is None or not any(self.solution.touches(cells) for cells in view):
            return None
        return self.solution.unit(view[0]), self.solution.unit(view[1])

    def linear(self, node: fx.Node, name: str) -> None:
        """Convolutions, linear, addmm, and products with a constant matrix: weight and bias."""
        units, op = self.units(name), self.ops.get(name)
        if units is None or not isinstance(op, Linear):
            return
        before, factor = stored_bias(node, self.context)
        weight, bias = rewrite(op.kernel, before, *units)
        if weight is not op.kernel.weight():
            self.operands[node, weight_position(node, self.context)] = weight
        place = bias_position(node)
        if (not bias.any()) if before is None else np.array_equal(np.broadcast_to(before, bias.shape), bias):
            return
        if place is None:
            rank = self.context.rank(node)
            self.added[node] = bias.reshape((-1,) + (1,) * (rank - 1 - op.y_axis))
        else:
            self.operands[node, place] = bias / factor

    def batch_norm(self, node: fx.Node, name: str) -> None:
        """A BatchNorm that stays, between new units: gamma and beta, or other operators."""
        affine = self._kept_affine(name, even_unchanged=self.leftover != "keep")
        if affine is None or self._written_otherwise(node, name, *affine):
            return
        scale, shift = affine
        named = arguments(node)
        mean, var = self.context.const(named["running_mean"]), self.context.const(named["running_var"])
        assert mean is not None
        assert var is not None
        eps = float(named.get("eps", named.get("epsilon", 1e-5)))
        gamma = scale * np.sqrt(var.astype(np.float64) + eps)
        beta = shift + scale * mean.astype(np.float64)
        for argument, array in (("weight", gamma), ("bias", beta)):
            self.operands[node, (position(node, argument),)] = array

    def _written_otherwise(self, node: fx.Node, name: str, scale: Array, shift: Array) -> bool:
        """Whether a BatchNorm that stays becomes Mul and Add, or a depthwise convolution, and notes it."""
        y = sole_result(node)
        if self.leftover == "keep" or y is None:
            return False
        pair = tuple(dense(array, self.system.axes[name]) for array in (scale, shift))
        if not all(_fits(array, node) for array in pair):
            return False
        rank = self.context.rank(y)
        if is_split(self.leftover, rank):
            self.replaced[node] = _steps(*pair)
            return True
        weight, bias = (np.broadcast_to(array.reshape(-1), scale.size) for array in pair)
        self.depthwise[node] = weight.reshape(-1, *(1,) * (rank - 1)), bias if bias.any() else None
        return True

    def norm(self, node: fx.Node, name: str) -> None:
        """LayerNorm and its kin, whose scale and bias have gone, or are between new units."""
        named = arguments(node)
        if name in self.solution.removed:
            scale, shift = np.ones(1), np.zeros(1)
        elif (affine := self._kept_affine(name)) is not None:
            scale, shift = affine
        else:
            return
        channels = tuple(fake(named["weight"]).shape)  # type: ignore[union-attr]
        self.operands[node, (position(node, "weight"),)] = np.broadcast_to(scale, channels).copy()
        y = sole_result(node)
        assert y is not None
        if named.get("bias") is not None or (shift.any() and "bias" in named):
            self.operands[node, (position(node, "bias"),)] = np.broadcast_to(shift, channels).copy()
        elif shift.any():
            self.added[node] = dense(shift, self.system.axes[name])

    def _kept_affine(self, name: str, *, even_unchanged: bool = False) -> tuple[Array, Array] | None:
        """The scale and shift that an affine has between its new units; None where they are as before."""
        units, candidate = self.units(name), self.candidates.get(name)
        if candidate is None or name in self.solution.removed:
            return None
        if units is None and even_unchanged:
            return candidate.scale, candidate.shift
        return None if units is None else between_units(candidate, *units)

    def arithmetic(self, node: fx.Node, name: str) -> None:
        """add, sub, mul, div, neg with constants that stay, between new units."""
        affine = self._kept_affine(name)
        if affine is None:
            if name not in self.candidates:
                self._offset(node, name)
            return
        scale, shift = (dense(array, self.system.axes[name]) for array in affine)
        self.replaced[node] = _steps(scale, shift)

    def _offset(self, node: fx.Node, name: str) -> None:
        """A constant that varies by position takes up the shift."""
        units, axes = self.units(name), self.system.axes.get(name)
        if units is None or axes is None:
            return
        reader, writer = units
        kind, named = opname(node), arguments(node)
        signs = {"self": 1.0, "other": float(named.get("alpha", 1)) * (1.0 if kind == "add" else -1.0)}
        if kind == "rsub":
            signs = {"self": -float(named.get("alpha", 1)), "other": 1.0}
        held = "self" if self.context.is_const(named["self"]) else "other"
        [moving] = {"self", "other"} - {held}
        stored = self.context.const(named[held])
        assert stored is not None
        moved = signs[held] * stored.astype(np.float64) + signs[moving] * dense(reader.shift, axes)
        result = (moved * dense(writer.inverse_scale, axes) + dense(writer.inverse_shift, axes)) / signs[held]
        self.operands[node, (position(node, held),)] = result

    def concat(self, node: fx.Node, name: str) -> None:
        """Constant parts of a cat are stored in the result's unit."""
        parts = arguments(node)["tensors"]
        for i, part in enumerate(parts):
            array = self.context.const(part)
            own = f"{name}#{i}"
            units = None if array is None else self.units(own if own in self.system.views else name)
            if array is None or units is None:
                continue
            writer = units[1]
            if own in self.system.views:
                shape = [1] * array.ndim
                shape[int(arguments(node).get("dim", 0)) % array.ndim] = -1
                scale, shift = writer.inverse_scale.reshape(shape), writer.inverse_shift.reshape(shape)
            else:
                axes = self.system.axes[name]
                scale, shift = dense(writer.inverse_scale, axes), dense(writer.inverse_shift, axes)
            self.operands[node, (0, i)] = array.astype(np.float64) * scale + shift

    def table(self, node: fx.Node, name: str) -> None:
        """The table of an embedding."""
        units, array = self.units(name), self.context.const(node.args[0])
        if units is not None and array is not None:
            self.operands[node, (0,)] = array.astype(np.float64) * units[1].inverse_scale + units[1].inverse_shift

    def recurrent(self, node: fx.Node, name: str) -> None:
        """LSTM, GRU, RNN: input weights `[gates·hidden, input]` and input biases of the first layer."""
        view = self.system.views.get(name)
        if view is None or not self.solution.touches(view[0]):
            return
        reader, place = self.solution.unit(view[0]), position(node, "params")
        params = arguments(node)["params"]
        for at, bias_at in input_weights(node):
            weight, bias = self.context.const(params[at]), self.context.const(params[bias_at])
            assert weight is not None
            assert bias is not None
            wide = weight.astype(np.float64)
            self.operands[node, (place, at)] = wide * reader.scale
            if reader.shift.any():
                self.operands[node, (place, bias_at)] = bias.astype(np.float64) + wide @ reader.shift

    def store(self, norms: Sequence[fx.Node]) -> None:
        """Keep what a BatchNorm makes of a constant as a constant, where something else reads it."""
        queue = list(norms)
        while queue:
            node = queue.pop(0)
            for user in node.users:
                if self.context.is_const(user):
                    queue.append(user)
                    continue
                for place in places_of(user, node):
                    array = self.context.const(node)
                    assert array is not None
                    self.operands.setdefault((user, place), array)


def _steps(scale: Array, shift: Array) -> tuple[Array | None, Array | None]:
    """What to multiply by and to add; a multiplication where neither does anything."""
    multiplies = bool(np.any(scale != 1)) or not shift.any()
    return scale if multiplies else None, shift if shift.any() else None


Handler = Callable[[_Finder, fx.Node, str], None]
BY_HANDLER: tuple[tuple[Handler, Sequence[str]], ...] = (
    (_Finder.linear, (*CONVOLUTIONS, "linear", "addmm", "matmul", "mm", "bmm")),
    (_Finder.batch_norm, tuple(BATCH_NORMS)),
    (_Finder.norm, tuple(CHANNEL_AXIS)),
    (_Finder.arithmetic, ("add", "div", "mul", "multiply", "neg", "rsub", "sub", "subtract", "true_divide")),
    (_Finder.concat, ("cat", "concat", "concatenate")),
    (_Finder.table, ("embedding",)),
    (_Finder.recurrent, RECURRENT),
)
HANDLERS: dict[str, Handler] = {name: handler for handler, names in BY_HANDLER for name in names}
