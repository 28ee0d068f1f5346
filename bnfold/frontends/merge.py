"""Carrying out branch merges on an ONNX graph: one Conv, Gemm or MatMul where a sum of branches was.

The result has the name and the attributes of the branch that multiplies most, and its own weight: what else reads the
old ones keeps them. Operands that stay are added to it; the last operator gives the sum its old name.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.branches.search import Merge, MergedSum, find_merges
from bnfold.frontends.context import Context, drop_unread
from bnfold.frontends.edit import Editor
from bnfold.frontends.linear import bias_add, is_certain, stored_bias
from bnfold.units.affine import Array
from bnfold.units.graph import Graph, Linear, Value

FIRST_BROADCASTING = 7
FIRST_WITHOUT_BIAS = 11  # the opset since which a Gemm may have none


def merges_of(graph: ir.Graph, context: Context, read: Graph) -> tuple[MergedSum, ...]:
    """The branch merges that an ONNX graph allows; none where sums still broadcast along an axis of their own."""
    if any(node.op_type in ("Add", "Sub") and (node.version or 13) < FIRST_BROADCASTING for node in graph):
        return ()
    nodes = operators(graph, context)
    return find_merges(read, held_values(graph), lambda op: _bias(op, nodes[op.name], context))


def held_values(graph: ir.Graph) -> set[Value]:
    """Values that cannot vanish: they leave the graph, or not exactly one operator reads them."""
    return {v for node in graph for v in node.outputs if v.is_graph_output() or len(v.uses()) != 1}


def operators(graph: ir.Graph, context: Context) -> dict[str, ir.Node]:
    """The node behind every operator of the solver's graph; a Sum is several Adds."""
    nodes: dict[str, ir.Node] = {}
    for node in graph:
        label = context.label(node)
        nodes[label] = node
        if node.op_type == "Sum":
            nodes |= {f"{label}#{i}": node for i in range(len(node.inputs) - 1)}
    return nodes


def _bias(op: Linear, node: ir.Node, context: Context) -> Array | None:
    """What a linear operator adds per channel; None where that is not the same everywhere, or it must stay."""
    channels = op.kernel.out_channels
    if node.op_type == "MatMul":
        found = bias_add(node, context, op.y_axis, channels) if op.has_bias else None
        return np.zeros(channels) if found is None else found.array
    if node.op_type not in ("Conv", "Gemm") or (node.op_type == "Conv" and not is_certain(node, context)):
        return None
    bias = stored_bias(node, context)
    if bias is None:
        return np.zeros(channels)
    same_in_every_row = bias.size == 1 or (bias.size == channels and bias.shape[-1] == channels)
    return np.broadcast_to(bias.reshape(-1), channels) if same_in_every_row else None


class Merger(Editor):
    """One graph whose branches are merged."""

    def __init__(self, graph: ir.Graph, context: Context, read: Graph) -> None:
        super().__init__(graph, context.names, context.store)
        self.context = context
        self.ops = {op.name: op for op in read.ops}
        self.nodes = operators(graph, context)
        self._weights: dict[tuple[Hashable, ...], list[ir.Value]] = {}
        self._successors: dict[ir.Value, ir.Value] = {}  # of sums that have been merged

    def run(self, sums: Sequence[MergedSum]) -> None:
        """Put every merged sum in its tree's place, inner trees first."""
        for merged in reversed(sums):
            self._replace(merged)
        drop_unread(self.orphans)

    def _replace(self, merged: MergedSum) -> None:
        result = merged.result
        assert isinstance(result, ir.Value)
        root = result.producer()
        assert root is not None
        gone = self._nodes_of([*merged.adds, *(name for merge in merged.merges for name in merge.names)])
        parts = [self._merged(merge, root) for merge in merged.merges]
        rest = [*((part, 1.0) for part in parts[1:]), *merged.rest]
        total = parts[0]
        for i, (value, factor) in enumerate(rest):
            value = self._now(value)
            op_type = "Add" if factor > 0 else "Sub"
            name = root.name if i == len(rest) - 1 else self.fresh(f"{root.name}_{op_type.lower()}")
            total = self._insert(root, op_type, [total, value], {}, name, self._like(total, value, result))
        self._successors[result] = total
        result.replace_all_uses_with(total, replace_graph_outputs=True)
        self.become(total, result)
        for node in gone:
            self.orphans += [v for v in node.inputs if v is not None]
        self.graph.remove(gone, safe=True)

    def _now(self, value: Value) -> ir.Value:
        """A value of the graph that was read, as it is in the graph by now."""
        assert isinstance(value, ir.Value)
        return self._successors.get(value, value)

    def _nodes_of(self, names: Sequence[str]) -> list[ir.Node]:
        """The nodes behind operators, without those that a Sum or a bias makes twice."""
        found: dict[ir.Node, None] = {}
        for name in names:
            node, op = self.nodes[name], self.ops[name]
            found[node] = None
            if isinstance(op, Linear) and node.op_type == "MatMul" and op.has_bias:
                found[next(iter(node.outputs[0].uses())).node] = None
        return list(found)

    def _merged(self, merge: Merge, root: ir.Node) -> ir.Value:
        """The operator that a merge leaves, in front of the tree's root."""
        main, source, like = merge.box.main, self._now(merge.source), merge.like
        node, stored = self.nodes[main.name], main.weight
        assert isinstance(like, ir.Value)
        assert isinstance(stored, ir.Value)
        weight = self._weight(merge, stored)
        rank = len(self.context.shape(like) or ())
        shape = (-1,) + ((1,) * (rank - 1 - main.y_axis) if node.op_type == "MatMul" else ())
        bias = None
        if merge.bias.any() or (node.op_type == "Gemm" and (node.version or 13) < FIRST_WITHOUT_BIAS):
            bias = self.constant(merge.bias.reshape(shape), stored.dtype, f"{stored.name}_bias")
        if node.op_type != "MatMul":
            operands = [source, weight] if bias is None else [source, weight, bias]
            y = self._insert(root, node.op_type, operands, _attributes(merge, node), node.name, like)
        else:
            operands = [weight, source] if main.kernel.out_axis == 0 else [source, weight]
            y = self._insert(root, "MatMul", operands, {}, node.name, like)
        made = y.producer()
        assert made is not None
        self.context.labels[made] = self.context.labels.pop(node)
        made.doc_string = node.doc_string
        made.metadata_props.update(node.metadata_props)
        if node.op_type == "MatMul" and bias is not None:
            y = self._insert(root, "Add", [y, bias], {}, self.fresh(f"{node.name}_bias"), like)
        return y

    def _weight(self, merge: Merge, stored: ir.Value) -> ir.Value:
        """The new weight, laid out as the main branch's; branches that shared their weights share the sum as well."""
        kernel = merge.box.main.kernel
        array = merge.weight
        if merge.box.window is None and kernel.out_axis == 1:
            array = array.T
        linears = tuple(op.weight for name in merge.names if isinstance(op := self.ops[name], Linear))
        made = self._weights.setdefault(linears, [])
        for value in made:
            if value.const_value is not None and np.array_equal(value.const_value.numpy(), array):
                return value
        made.append(self.constant(array, stored.dtype, f"{stored.name}_merged"))
        return made[-1]

    def _insert(
        self,
        root: ir.Node,
        op_type: str,
        operands: Sequence[ir.Value],
        attributes: Mapping[str, Any],
        name: str | None,
        like: ir.Value | None,
    ) -> ir.Value:
        """A node in front of another; its result has the type and shape of a value, if one is given."""
        node = ir.Node("", op_type, operands, ir.convenience.convert_attributes(attributes), num_outputs=1, name=name)
        node.version = root.version
        self.graph.insert_before(root, node)
        y = node.outputs[0]
        y.name = self.fresh(f"{name}_output")
        y.type = root.outputs[0].type
        y.shape = None if like is None else like.shape
        return y

    @staticmethod
    def _like(a: ir.Value, b: ir.Value, result: ir.Value) -> ir.Value | None:
        """The shape of a sum of two operands, if it is plain to see."""
        return result if a.shape is not None and a.shape == b.shape == result.shape else None


def _attributes(merge: Merge, node: ir.Node) -> dict[str, Any]:
    """How the new operator slides, or how it reads its operands."""
    window = merge.box.window
    if window is None:
        return {key: node.attributes[key].as_int() for key in ("transA", "transB") if key in node.attributes}
    return {
        "dilations": window.dilations,
        "group": merge.box.groups,
        "kernel_shape": window.kernel,
        "pads": (*window.pads_begin, *window.pads_end),
        "strides": window.strides,
    }
