"""Carrying out a plan on an ONNX graph: new weights, no BatchNorms, everything else untouched.

What an operator becomes follows from the units on its two sides alone (`affine.rewrite`); what needs no change keeps
its bytes. All new numbers are computed and rounded first, so that a plan whose numbers do not fit is seen before
anything has happened. Then the graph is changed in place: `onnx.fold_model` hands in a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.frontends.context import ONNX_DOMAINS, Context, attr, drop_unread
from bnfold.frontends.edit import Editor
from bnfold.frontends.leftover import Step, arithmetic_steps, leftover_steps
from bnfold.frontends.linear import RECURRENT_GATES, bias_add, stored_bias
from bnfold.frontends.normalisations import CHANNEL_AXIS, HAS_BIAS, has_room, unit_parameters
from bnfold.planning.economy import between_units
from bnfold.planning.plan import Folding
from bnfold.planning.reach import Misfits
from bnfold.planning.sharing import Own, Version, version
from bnfold.units.affine import Array, Unit, rewrite, round_once, scaled
from bnfold.units.graph import Graph, Linear, Op, Recurrent
from bnfold.units.layout import Axis, Cells
from bnfold.units.solver import Solution
from bnfold.units.system import Candidate, System

Edit = Callable[[], object]


def rewrite_graph(graph: ir.Graph, folding: Folding, context: Context, leftover: str = "keep") -> None:
    """Apply a plan to a graph in place.

    Args:
        graph: The ONNX graph that was read.
        folding: The plan and its units.
        context: What the readers knew.
        leftover: What a BatchNorm that stays is written as (`bnfold.planning.leftover`).
    """
    Rewriter(graph, folding.graph, folding.system, folding.solution, context, leftover).run()


def find_misfits(
    graph: ir.Graph, read: Graph, system: System, solution: Solution, context: Context, leftover: str = "keep"
) -> Misfits:
    """The views of the system whose new numbers would not fit the dtype they are stored in; changes nothing.

    Args:
        graph: The ONNX graph that was read.
        read: The same graph as the solver saw it.
        system: The cells behind its operators' channels.
        solution: The unit of every cell, and what vanishes.
        context: What the readers knew.
        leftover: What a BatchNorm that stays is written as.
    """
    return Rewriter(graph, read, system, solution, context, leftover).misfits()


class Rewriter(Editor):
    """One graph being rewritten."""

    def __init__(
        self, graph: ir.Graph, read: Graph, system: System, solution: Solution, context: Context, leftover: str
    ) -> None:
        super().__init__(graph, context.names, context.store)
        self.leftover = leftover
        self.system, self.solution = system, solution
        self.context = context
        self.ops: dict[str, Op] = {op.name: op for op in read.ops}
        self.candidates: dict[str, Candidate] = {c.op.name: c for c in system.candidates}
        self._edits: list[Edit] = []  # what is to be done, its numbers already rounded
        self._at = ""  # the view whose numbers are being computed
        self._judging = False
        self._too_large: list[str] = []
        self._too_small: list[str] = []
        self._done: set[ir.Value] = set()  # shared weights that have been rewritten already
        self._given: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}  # new operands
        self._versions: dict[tuple[ir.Value, bytes, bytes], ir.Value] = {}  # copies of shared weights

    def run(self) -> None:
        """Rewrite every operator whose units changed, then take out what vanished."""
        nodes = [node for node in self.graph if node not in self.context.skip]
        self._prepare(nodes)
        for edit in self._edits:
            edit()
        for node in nodes:
            gone = self.context.label(node) in self.solution.removed and node.op_type not in CHANNEL_AXIS
            if gone or self._is_copy(node):
                self.take_out(node)
        drop_unread(self.orphans)

    def misfits(self) -> Misfits:
        """The views whose new numbers would not fit."""
        self._judging = True
        self._prepare([node for node in self.graph if node not in self.context.skip])
        return Misfits(tuple(self._too_large), tuple(self._too_small))

    def _prepare(self, nodes: Sequence[ir.Node]) -> None:
        """Compute every new number."""
        for node in nodes:
            handler = HANDLERS.get(node.op_type)
            if handler is not None:
                handler(self, node, self.context.label(node))

    def _is_copy(self, node: ir.Node) -> bool:
        """Whether a node is an Identity that no output depends on by name alone."""
        x, y = (node.inputs[0], node.outputs[0]) if node.inputs else (None, None)
        if node.op_type != "Identity" or node.domain not in ONNX_DOMAINS or x is None or y is None:
            return False
        return not y.is_graph_output() or self._can_lend_its_name(x)

    def _can_lend_its_name(self, value: ir.Value) -> bool:
        """Whether a value may take the name of a graph output."""
        return value.producer() is not None and not value.is_graph_output() and value.graph is self.graph

    def changed(self, cells: Cells) -> bool:
        """Whether any of these channels has a new unit."""
        return self.solution.touches(cells)

    def units(self, name: str) -> tuple[Unit, Unit] | None:
        """The units on both sides of an operator; None where both are as they were."""
        self._at = name
        view = self.system.views.get(name)
        if view is None or not any(self.changed(cells) for cells in view):
            return None
        return self.solution.unit(view[0]), self.solution.unit(view[1])

    def rounded(self, array: NDArray[Any], dtype: ir.DataType | None) -> NDArray[Any]:
        """Numbers as they are stored, rounded once."""
        assert dtype is not None
        return self.checked(round_once(np.asarray(array, dtype=np.float64), dtype.numpy()))

    def checked(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same array, noted if it is asked whether it fits its dtype and does not."""
        if self._judging and not np.isfinite(array).all():
            self._too_large.append(self._at)
        return np.asarray(array, order="C")

    def give(self, node: ir.Node, index: int, array: Array, dtype: ir.DataType | None, wanted: str) -> None:
        """Give a node a new constant operand, the same as another node that got these numbers for the same one."""
        rounded = self.rounded(array, dtype)
        key = (wanted, rounded.shape, rounded.tobytes())

        def read_it() -> None:
            if key not in self._given:
                self._given[key] = self.constant(rounded, dtype, wanted)
            self.set_input(node, index, self._given[key])

        self._edits.append(read_it)

    def set_weight(self, stored: ir.Value, rounded: NDArray[Any]) -> None:
        """Put new numbers behind a weight, once for all of its readers."""
        if stored in self._done:
            return
        self._done.add(stored)
        checked = self.checked(rounded)
        if self._judging:
            return
        tensor = ir.Tensor(self.store(checked), dtype=stored.dtype, name=stored.name)
        self._edits.append(lambda: setattr(stored, "const_value", tensor))

    def renew(self, node: ir.Node, index: int, held: ir.Value, array: Array) -> None:
        """Give a node other numbers for a constant operand: in place where nothing else reads it."""
        alone = len(held.uses()) == 1 and not held.is_graph_output()
        if alone and held.const_value is not None and tuple(held.const_value.shape) == array.shape:
            self.set_weight(held, round_once(array, held.const_value.dtype.numpy()))
        else:
            self.give(node, index, array, held.dtype, f"{held.name}_folded")

    def store_weight(
        self, node: ir.Node, index: int, op: Linear | Recurrent, array: NDArray[Any], unit: Version
    ) -> None:
        """Put new numbers behind an operator's weight: for all that share it, or for the one that has a copy."""
        stored = node.inputs[index]
        assert stored is not None
        if not isinstance(op.weight, Own):
            self.set_weight(stored, array)
            return
        key, dtype, wanted, checked = (stored, *unit), stored.dtype, f"{stored.name}_folded", self.checked(array)
        if self._judging:
            return
        kept = self.store(checked)

        def read_copy() -> None:
            if key not in self._versions:
                self._versions[key] = self.constant(kept, dtype, wanted)
            self.set_input(node, index, self._versions[key])

        self._edits.append(read_copy)

    def insert_after(self, node: ir.Node, op_type: str, operands: Sequence[ir.Value]) -> ir.Node:
        """Put `op(·, *operands)` behind a node; its result takes the name and the readers of the node's."""
        y = node.outputs[0]
        following = ir.Node(
            "", op_type, [y, *operands], num_outputs=1, name=self.fresh(f"{node.name}_{op_type.lower()}")
        )
        self.graph.insert_after(node, following)
        z = following.outputs[0]
        y.replace_all_uses_with(z, replace_graph_outputs=True)
        following.replace_input_with(0, y)
        self.become(z, y)
        return following

    def take_out(self, node: ir.Node) -> None:
        """Remove a node that does nothing any more: its readers read its input."""
        y = node.outputs[0]
        x = next(v for v in node.inputs if v is not None and not self.context.is_const(v))
        if y.is_graph_output() and not self._can_lend_its_name(x):
            self.orphans += [v for v in node.inputs if v is not None and v is not x]
            self._replace(node, [Step("Identity")])
            return
        leaves = y.is_graph_output()
        y.replace_all_uses_with(x, replace_graph_outputs=True)
        if leaves:
            self.become(x, y)
        self.orphans += [v for v in node.inputs if v is not None and v is not x]
        self.graph.remove(node, safe=True)

    def _replace(self, node: ir.Node, steps: Sequence[Step]) -> None:
        """Replace a node of one feature by a chain of others, the last of which takes its name and its result's."""
        x = next(v for v in node.inputs if v is not None and not self.context.is_const(v))
        y = node.outputs[0]
        value = x
        for i, (op_type, arrays, attributes) in enumerate(steps):
            last = i == len(steps) - 1
            wanted = f"{node.name}_{op_type.lower()}_constant"
            operands = [value, *(self.constant(array, y.dtype, wanted) for array in arrays)]
            name = node.name if last else self.fresh(f"{node.name}_{op_type.lower()}")
            step = ir.Node("", op_type, operands, attributes, num_outputs=1, name=name)
            self.graph.insert_before(node, step)
            value = step.outputs[0]
            value.type, value.shape = y.type, y.shape
            value.name = None if last else self.fresh(f"{y.name}_{op_type.lower()}")
        y.replace_all_uses_with(value, replace_graph_outputs=True)
        self.become(value, y)
        self.orphans += [v for v in node.inputs if v is not None and v is not x]
        self.graph.remove(node, safe=True)

    def linear(self, node: ir.Node, name: str) -> None:
        """Conv, ConvTranspose, Gemm: weight and bias."""
        units = self.units(name)
        if units is None:
            return
        op = self.ops[name]
        assert isinstance(op, Linear)
        stored = node.inputs[1]
        assert stored is not None
        before = stored_bias(node, self.context)
        bias = self._rewrite_weight(node, 1, op, before, units)
        same = not bias.any() if before is None else np.array_equal(np.broadcast_to(before, bias.shape), bias)
        if same:
            return
        if "beta" in node.attributes:
            self._edits.append(lambda: node.attributes.update(beta=ir.AttrFloat32("beta", 1.0)))
        held = node.inputs[2] if before is not None else None
        if held is None:
            self.give(node, 2, bias, stored.dtype, f"{stored.name}_bias")
        else:
            self.renew(node, 2, held, bias)

    def _rewrite_weight(
        self, node: ir.Node, index: int, op: Linear, bias: Array | None, units: tuple[Unit, Unit]
    ) -> Array:
        """Store the new weight where it differs; return the new bias."""
        weight, shift = rewrite(op.kernel, bias, *units)
        if weight is not op.kernel.weight():
            if self._judging and _vanishes(weight, op.kernel.weight()):
                self._too_small.append(self._at)
            self.store_weight(node, index, op, weight, version(*units))
        return shift

    def matmul(self, node: ir.Node, name: str) -> None:
        """MatMul by a constant, and the Add that is its bias."""
        units, op = self.units(name), self.ops.get(name)
        if units is None or not isinstance(op, Linear):
            return
        index = 0 if self.context.is_const(node.inputs[0]) else 1
        stored = node.inputs[index]
        rank = self.context.rank(node.outputs[0])
        assert stored is not None
        assert rank is not None
        found = bias_add(node, self.context, op.y_axis, op.kernel.out_channels) if op.has_bias else None
        bias = self._rewrite_weight(node, index, op, None if found is None else found.array, units)
        shaped = bias.reshape((-1,) + (1,) * (rank - 1 - op.y_axis))
        if found is None and bias.any():
            rounded, wanted = self.rounded(shaped, stored.dtype), f"{stored.name}_bias"
            self._edits.append(lambda: self.insert_after(node, "Add", [self.constant(rounded, stored.dtype, wanted)]))
        elif found is not None and not np.array_equal(found.array, bias):
            self.give(found.node, found.operand, shaped, stored.dtype, f"{stored.name}_bias")

    def batch_norm(self, node: ir.Node, name: str) -> None:
        """A BatchNorm that stays, between new units: gamma and beta, or other operators."""
        affine = self._kept_affine(name, even_unchanged=self.leftover != "keep")
        if affine is None:
            return
        scale, shift = affine
        axes = self.system.axes[name]
        steps = leftover_steps(node, self.leftover, dense(scale, axes), dense(shift, axes))
        if steps is not None:
            self._swap(node, steps)
            return
        mean, var = (self.context.const(v) for v in node.inputs[3:5])
        assert mean is not None
        assert var is not None
        eps = float(attr(node, "epsilon", 1e-5))
        gamma = scale * np.sqrt(var.astype(np.float64) + eps)
        beta = shift + scale * mean.astype(np.float64)
        for index, array in ((1, gamma), (2, beta)):
            before = node.inputs[index]
            assert before is not None
            self.renew(node, index, before, array)

    def norm(self, node: ir.Node, name: str) -> None:
        """LayerNormalization and its kin, whose scale and bias have gone, or are between new units."""
        if name in self.solution.removed:
            self._write_norm(node, *unit_parameters(node))
            return
        affine = self._kept_affine(name)
        if affine is None:
            return
        scale, shift = affine
        if has_room(node, scale) and (node.op_type in HAS_BIAS or not shift.any()):
            self._write_norm(node, scale, shift if node.op_type in HAS_BIAS else None)
            return
        self._write_norm(node, *unit_parameters(node))
        axes = self.system.axes[name]
        steps = self._rounded_steps(node, arithmetic_steps(dense(scale, axes), dense(shift, axes)))
        self._edits.append(lambda: self._append(node, steps))

    def _append(self, node: ir.Node, steps: Sequence[Step]) -> None:
        """Put a chain behind a node."""
        at = node
        for op_type, arrays, _ in steps:
            wanted = f"{node.name}_{op_type.lower()}_constant"
            at = self.insert_after(at, op_type, [self.constant(a, node.outputs[0].dtype, wanted) for a in arrays])

    def _swap(self, node: ir.Node, steps: Sequence[Step]) -> None:
        """Replace a node by a chain when its turn comes."""
        rounded = self._rounded_steps(node, steps)
        self._edits.append(lambda: self._replace(node, rounded))

    def _rounded_steps(self, node: ir.Node, steps: Sequence[Step]) -> list[Step]:
        dtype = node.outputs[0].dtype
        return [step._replace(constants=tuple(self.rounded(a, dtype) for a in step.constants)) for step in steps]

    def _write_norm(self, node: ir.Node, scale: Array, bias: Array | None) -> None:
        """Give a normalisation other parameters; no bias is no operand."""
        held = node.inputs[1]
        assert held is not None
        self.renew(node, 1, held, scale)
        before = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and before is not None:
            self.renew(node, 2, before, bias)
        elif bias is not None and bias.any():
            self.give(node, 2, bias, held.dtype, f"{held.name}_bias")
        elif before is not None:
            self._edits.append(lambda: node.resize_inputs(2))
            self.orphans.append(before)

    def _kept_affine(self, name: str, even_unchanged: bool = False) -> tuple[Array, Array] | None:
        """The scale and shift that an affine has between its new units; None where they are as before."""
        units, candidate = self.units(name), self.candidates.get(name)
        if candidate is None or name in self.solution.removed:
            return None
        if units is None and even_unchanged:
            return candidate.scale, candidate.shift
        return None if units is None else between_units(candidate, *units)

    def arithmetic(self, node: ir.Node, name: str) -> None:
        """Mul, Add, Sub, Div, Neg by constants that stay, between new units."""
        affine = self._kept_affine(name)
        if affine is None:
            if name not in self.candidates:
                self._offset(node, name)
            return
        axes = self.system.axes[name]
        scale, shift = (dense(array, axes) for array in affine)
        self._swap(node, arithmetic_steps(scale, shift))

    def _offset(self, node: ir.Node, name: str) -> None:
        """An Add or Sub of a constant that varies by position: the constant takes up the shift."""
        units, axes = self.units(name), self.system.axes.get(name)
        if units is None or axes is None:
            return
        reader, writer = units
        at = 0 if self.context.is_const(node.inputs[0]) else 1
        stored = self.context.const(node.inputs[at])
        assert stored is not None
        x_sign = -1.0 if node.op_type == "Sub" and at == 0 else 1.0
        c_sign = -1.0 if node.op_type == "Sub" and at == 1 else 1.0
        moved = c_sign * stored.astype(np.float64) + x_sign * dense(reader.shift, axes)
        result = c_sign * (moved * dense(writer.inverse_scale, axes) + dense(writer.inverse_shift, axes))
        held = node.inputs[at]
        assert held is not None
        self.give(node, at, result, held.dtype, f"{held.name}_folded")

    def operands(self, node: ir.Node, name: str) -> None:
        """Constant operands of Max, Min, Where and Concat are stored in the result's unit."""
        for i, value in enumerate(node.inputs):
            array = self.context.const(value)
            if array is None or value is None or (node.op_type == "Where" and i == 0):
                continue
            own = f"{name}#{i}"
            units = self.units(own if own in self.system.views else name)
            if units is None:
                continue
            writer = units[1]
            if own in self.system.views:
                shape = [1] * array.ndim
                shape[int(attr(node, "axis", 1)) % array.ndim] = -1
                scale, shift = writer.inverse_scale.reshape(shape), writer.inverse_shift.reshape(shape)
            else:
                axes = self.system.axes[name]
                scale, shift = dense(writer.inverse_scale, axes), dense(writer.inverse_shift, axes)
            self.give(node, i, array * scale + shift, value.dtype, f"{value.name}_folded")

    def table(self, node: ir.Node, name: str) -> None:
        """Gather of a constant table (an Embedding)."""
        units, stored = self.units(name), node.inputs[0]
        array = self.context.const(stored)
        if units is None or array is None or stored is None:
            return
        across = (1,) * (array.ndim - 1) + (-1,)
        factors, terms = units[1].inverse_scale.reshape(across), units[1].inverse_shift.reshape(across)
        self.set_weight(stored, scaled(array, (factors,), terms))

    def recurrent(self, node: ir.Node, name: str) -> None:
        """LSTM, GRU, RNN: input weight `[directions, gates·hidden, input]` and the input half of the bias."""
        view, op = self.system.views.get(name), self.ops.get(name)
        if view is None or not isinstance(op, Recurrent) or not self.changed(view[0]):
            return
        self._at = name
        reader, stored = self.solution.unit(view[0]), node.inputs[1]
        array = self.context.const(stored)
        assert array is not None
        assert stored is not None
        wide = array.astype(np.float64)
        if np.any(reader.scale != 1):
            writer = self.solution.unit(view[1])
            self.store_weight(node, 1, op, round_once(wide * reader.scale, array.dtype), version(reader, writer))
        response = wide @ reader.shift
        if not response.any():
            return
        rows = response.shape[1]
        assert rows % RECURRENT_GATES[node.op_type] == 0
        before = self.context.const(node.inputs[3]) if len(node.inputs) > 3 else None
        bias = np.zeros((len(response), 2 * rows)) if before is None else before.astype(np.float64)
        bias = np.concatenate([bias[:, :rows] + response, bias[:, rows:]], axis=1)
        self.give(node, 3, bias, stored.dtype, f"{stored.name}_bias")


def _vanishes(weight: NDArray[Any], before: NDArray[Any]) -> bool:
    """Whether all of a weight has left the range in which its dtype keeps its bits, and had not before."""
    smallest = 2.0**-14 if weight.dtype == np.float16 else 2.0**-126
    new, old = (float(np.abs(array).max(initial=0)) for array in (weight, before))
    return new < smallest <= old


def dense(values: Array, axes: Sequence[Axis]) -> Array:
    """Per-cell values as an array that broadcasts against the tensor they belong to.

    Args:
        values: float64, one per cell, in the order of the channel factors.
        axes: The layout of the tensor.
    """
    dims = [f.size for axis in axes for f in axis if f.channel]
    own: list[int] = []
    full: list[int] = []
    merged: list[int] = []
    for axis in axes:
        varies = any(f.channel for f in axis)
        sizes = [f.size if varies and isinstance(f.size, int) else 1 for f in axis]
        own += [size if f.channel else 1 for size, f in zip(sizes, axis, strict=True)]
        full += sizes
        merged.append(int(np.prod(sizes, dtype=np.int64)))
    assert values.size == int(np.prod([d for d in dims if isinstance(d, int)], dtype=np.int64))
    return np.broadcast_to(values.reshape(own), full).reshape(merged)


Handler = Callable[[Rewriter, ir.Node, str], None]
HANDLERS: dict[str, Handler] = {
    "Add": Rewriter.arithmetic,
    "BatchNormalization": Rewriter.batch_norm,
    "Concat": Rewriter.operands,
    "Conv": Rewriter.linear,
    "ConvTranspose": Rewriter.linear,
    "Div": Rewriter.arithmetic,
    "GRU": Rewriter.recurrent,
    **dict.fromkeys(CHANNEL_AXIS, Rewriter.norm),
    "Gather": Rewriter.table,
    "Gemm": Rewriter.linear,
    "LSTM": Rewriter.recurrent,
    "MatMul": Rewriter.matmul,
    "Max": Rewriter.operands,
    "Min": Rewriter.operands,
    "Mul": Rewriter.arithmetic,
    "Neg": Rewriter.arithmetic,
    "RNN": Rewriter.recurrent,
    "Sub": Rewriter.arithmetic,
    "Where": Rewriter.operands,
}
