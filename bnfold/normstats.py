"""What the BatchNorms of an unfolded ONNX model see: the mean and variance of their inputs over a data set.

The model is run with these reductions in place of its outputs, one set per BatchNorm,

    x[N, C, ...] → Reshape [N, C, rest] → Cast float64 → mean over N and rest → mean of (x − mean)²

so that a batch leaves 2·C numbers per BatchNorm and no activation is kept; batches go together in `moments`. Only what
a reduction needs of the model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.datasets import Dataset
from bnfold.errors import UnsupportedError
from bnfold.feeds import model_inputs
from bnfold.moments import Moments
from bnfold.runners import OrtRunner, runnable
from bnfold.streams import fixed_batch, stream

ONNX = ("", "ai.onnx")
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


@dataclass(frozen=True)
class Seen:
    """What a BatchNorm stores, and what it sees.

    Attributes:
        mean: float64[C], stored.
        variance: float64[C], stored.
        moments: Of its input over the data.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    moments: Moments


def inlined(model: ir.Model) -> ir.Model:
    """A copy without local functions, in whose bodies BatchNorms would be out of sight."""
    model = model.clone()
    if model.functions:
        from onnx_ir.passes.common import InlinePass

        InlinePass()(model)
    return model


def find_norms(model: ir.Model) -> tuple[tuple[Norm, ...], tuple[str, ...]]:
    """The BatchNorms of a model's main graph, in execution order, and one note on each kind of others."""
    varying: set[ir.Value] = set(model.graph.inputs)
    depths: dict[ir.Value, int] = {}
    norms: list[Norm] = []
    others = {"compute their statistics from the batch or from inputs": 0, "stand inside control flow": 0}
    for node in model.graph:
        reads = [value for value in _reads(node) if value is not None]
        depth = max((depths.get(value, 0) for value in reads), default=0)
        others["stand inside control flow"] += sum(_is_norm(inner) for inner in _inside(node))
        if _is_norm(node):
            stored, x = node.inputs[3:5], node.inputs[0]
            if _trains(node) or len(stored) < 2 or any(value is None or value in varying for value in stored):
                others["compute their statistics from the batch or from inputs"] += 1
            elif x in varying:
                output = node.outputs[0].name or ""
                norms.append(Norm(node.name or output, output, depth, _eps(node)))
                depth += 1
        if any(value in varying for value in reads):
            varying.update(node.outputs)
        depths.update(dict.fromkeys(node.outputs, depth))
    said = (f"{count} BatchNorms {what} and are left as they are" for what, count in others.items() if count)
    return tuple(norms), tuple(sentence.replace("1 BatchNorms", "1 BatchNorm", 1) for sentence in said)


def collect(
    model: ir.Model,
    norms: Sequence[Norm],
    data: Dataset,
    progress: Callable[[float | None], None] | None = None,
) -> tuple[dict[str, Seen], int]:
    """One pass over the data.

    Args:
        model: The model; it is not changed.
        norms: Which of its BatchNorms to look at.
        data: The data set.
        progress: Called with the part done.

    Returns:
        What each saw, by `Norm.output`, and the number of rows.

    Raises:
        UsageError: The rows are not what the model takes.
        UnreadableError: The data is damaged.
        UnsupportedError: onnxruntime does not run the model, or a batch that had to be filled up cannot be cut again.
    """
    declared = model_inputs(model)
    stored: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    moments: dict[str, Moments] = {}
    runners: dict[int | None, OrtRunner] = {}
    rows = 0
    for fed in stream(data, declared):
        cut = fed.rows if fed.rows < fed.size else None
        if cut not in runners:
            with runnable(_probed(model, norms, cut)) as file:
                runners[cut] = OrtRunner(file, optimize=False)
        got = list(runners[cut].run(fed.feeds).values())
        for index, norm in enumerate(norms):
            shape, mean, variance, old_mean, old_variance = got[5 * index : 5 * index + 5]
            if cut is not None and shape[0] != fed.size:
                raise UnsupportedError(
                    f"BatchNorm {norm.name!r} sees {shape[0]} rows for a batch of {fed.size}, so a batch that is not "
                    "full cannot be told apart",
                    f"Give a number of rows that {fixed_batch(declared)} divides, or export with an open batch.",
                )
            count = int((shape[0] if cut is None else cut) * np.prod(shape[2:]))
            part = Moments(count, mean, variance * count)
            moments[norm.output] = moments[norm.output].merge(part) if norm.output in moments else part
            stored[norm.output] = (old_mean, old_variance)
        rows += fed.rows
        if progress:
            progress(fed.done)
    return {key: Seen(*stored[key], found) for key, found in moments.items()}, rows


def nodes_by_output(model: ir.Model) -> dict[str, ir.Node]:
    """The nodes of a model's main graph by the name of their first output."""
    return {node.outputs[0].name or "": node for node in model.graph if node.outputs}


def _probed(model: ir.Model, norms: Sequence[Norm], rows: int | None) -> ir.Model:
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
            waiting += _reads(node)
    return found


def _inside(node: ir.Node) -> Iterator[ir.Node]:
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


def _reads(node: ir.Node) -> list[ir.Value | None]:
    """What a node reads, in its bodies as well."""
    return [*node.inputs, *(value for inner in _inside(node) for value in inner.inputs)]


def _is_norm(node: ir.Node) -> bool:
    return node.op_type == "BatchNormalization" and node.domain in ONNX


def _trains(node: ir.Node) -> bool:
    mode = node.attributes.get("training_mode")
    return (mode is not None and bool(mode.as_int())) or sum(bool(value.name) for value in node.outputs) > 1


def _eps(node: ir.Node) -> float:
    attribute = node.attributes.get("epsilon")
    return 1e-5 if attribute is None else attribute.as_float()


def _attribute(name: str, value: int | tuple[int, ...]) -> ir.Attr:
    return ir.AttrInt64(name, value) if isinstance(value, int) else ir.AttrInt64s(name, value)
