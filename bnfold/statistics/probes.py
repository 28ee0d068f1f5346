"""A copy of a model that computes what its BatchNorms see, in place of its outputs.

    x[N, C, ...] → Reshape [N, C, rest] → Cast float64 → mean over N and rest → mean of (x − mean)²

No activation leaves the model, and only what a reduction needs of it is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

AXES_AS_INPUT = 18  # the opset from which ReduceMean takes its axes as an input


@dataclass(frozen=True)
class Norm:
    """A BatchNorm whose statistics can be compared with data.

    Attributes:
        name: The node's name; its output's where it has none.
        output: The value it produces, by which it is found again in a copy of the model.
        depth: How many such BatchNorms stand one after another on the longest way to its input.
        eps: What it adds to the variance.
    """

    name: str
    output: str
    depth: int
    eps: float


def nodes_by_output(model: ir.Model) -> dict[str, ir.Node]:
    """The nodes of a model's main graph by the name of their first output."""
    return {node.outputs[0].name or "": node for node in model.graph if node.outputs}


def probed(model: ir.Model, norms: Sequence[Norm], rows: int | None) -> ir.Model:
    """A copy that computes five values per BatchNorm: the shape of its input, its mean and variance, and those stored.

    Args:
        model: The model.
        norms: The BatchNorms.
        rows: How many rows of the batch count; None for all.
    """
    model = model.clone()
    graph, nodes = model.graph, nodes_by_output(model)
    maker = _Maker(graph, model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1)))
    outputs: list[ir.Value] = []
    for norm in norms:
        x, _, _, mean, variance = nodes[norm.output].inputs[:5]
        shape = maker.add("Shape", x)
        kept = x if rows is None else maker.add("Gather", x, maker.integers(range(rows)), axis=0)
        wide = maker.double(maker.add("Reshape", kept, maker.integers((0, 0, -1))))
        centre = maker.mean(wide, keepdims=1)
        apart = maker.add("Sub", wide, centre)
        spread = maker.mean(maker.add("Mul", apart, apart), keepdims=0)
        centre = maker.add("Reshape", centre, maker.integers((-1,)))
        outputs += [shape, centre, spread, maker.double(mean), maker.double(variance)]
    for index, value in enumerate(outputs):
        value.type = ir.TensorType(ir.DataType.DOUBLE if index % 5 else ir.DataType.INT64)
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    needed = _needed(outputs)
    graph.remove([node for node in graph if node not in needed], safe=True)
    return model


class _Maker:
    """Appends nodes to a graph, under names that are free."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph, self._opset = graph, opset
        names = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        for node in ir.traversal.RecursiveGraphIterator(graph):
            names |= {node.name, *(value.name for value in (*node.inputs, *node.outputs) if value is not None)}
        self._names = names
        self._made = 0

    def add(self, op: str, *inputs: ir.Value | None, **attributes: int | tuple[int, ...]) -> ir.Value:
        name = self._fresh()
        made = [_attribute(key, value) for key, value in attributes.items()]
        node = ir.Node("", op, inputs, made, num_outputs=1, name=name)
        node.outputs[0].name = name
        self._graph.append(node)
        return node.outputs[0]

    def integers(self, values: Sequence[int]) -> ir.Value:
        tensor = ir.tensor(np.array(list(values), dtype=np.int64), name=self._fresh())
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape((len(values),)), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def double(self, value: ir.Value | None) -> ir.Value:
        return self.add("Cast", value, to=int(ir.DataType.DOUBLE))

    def mean(self, value: ir.Value, *, keepdims: int) -> ir.Value:
        if self._opset >= AXES_AS_INPUT:
            return self.add("ReduceMean", value, self.integers((0, 2)), keepdims=keepdims)
        return self.add("ReduceMean", value, axes=(0, 2), keepdims=keepdims)

    def _fresh(self) -> str:
        while (name := f"bnfold_statistic_{self._made}") in self._names:
            self._made += 1
        self._made += 1
        return name


def _needed(outputs: Sequence[ir.Value]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    waiting: list[ir.Value | None] = list(outputs)
    while waiting:
        value = waiting.pop()
        node = None if value is None else value.producer()
        if node is not None and node not in found:
            found.add(node)
            waiting += reads(node)
    return found


def inside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of a node's bodies, and of theirs."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        graphs: tuple[ir.Graph, ...] = ()
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = (attribute.as_graph(),)
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = tuple(attribute.as_graphs())
        for graph in graphs:
            yield from ir.traversal.RecursiveGraphIterator(graph)


def reads(node: ir.Node) -> list[ir.Value | None]:
    """What a node reads, in its bodies as well."""
    return [*node.inputs, *(value for inner in inside(node) for value in inner.inputs)]


def _attribute(name: str, value: int | tuple[int, ...]) -> ir.Attr:
    return ir.AttrInt64(name, value) if isinstance(value, int) else ir.AttrInt64s(name, value)
