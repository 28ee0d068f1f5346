"""One ONNX graph as the solver's graph: every node goes to its reader, what nobody can vouch for is rigid.

Bodies of If, Loop and Scan are graphs of their own: what they capture from outside, and what enters and leaves them, is
rigid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from bnfold.frontends.context import (
    CONTROL_FLOW,
    FLOATS,
    ONNX_DOMAINS,
    PRECISION,
    Context,
    bodies,
    nodes_within,
    not_at_inference,
)
from bnfold.frontends.edit import Store, in_memory
from bnfold.frontends.normalisations import CHANNEL_AXIS, read_norm
from bnfold.frontends.norms import constant_norms
from bnfold.frontends.readers import READERS
from bnfold.reasons import Reason
from bnfold.units.graph import Graph, Linear, Op, Recurrent, Rigid, Shape

SHAPE_ONLY = ("Shape", "Size")


@dataclass(frozen=True)
class Reading:
    """One ONNX graph, read.

    Attributes:
        context: What the readers knew.
        graph: The same graph as the solver sees it.
        order: Labels of the BatchNorms, in graph order.
    """

    context: Context
    graph: Graph
    order: tuple[str, ...]


def read_graph(
    graph: ir.Graph,
    labels: dict[ir.Node, str],
    names: set[str],
    norm_affine: bool = False,
    store: Store = in_memory,
    excluded: frozenset[ir.Node] = frozenset(),
) -> Reading:
    """Translate one ONNX graph; bodies of control flow are left to their own turn."""
    context = Context(graph, labels, names, norm_affine, store, excluded)
    nodes = list(graph)
    norms = [node for node in nodes if node.op_type == "BatchNormalization" and node.domain in ONNX_DOMAINS]
    context.norms = constant_norms(norms, context)
    stored = [*norms, *(node for node in nodes if norm_affine and node.op_type in CHANNEL_AXIS)]
    precision = min((PRECISION.get(node.outputs[0].dtype, 53) for node in stored), default=53)  # type: ignore[arg-type]
    for value in (*graph.inputs, *(v for node in nodes for v in (*node.inputs, *node.outputs))):
        if value is not None and value not in context.shapes and not context.is_const(value):
            context.shape(value)
    ops: list[Op] = []
    for node in nodes:
        if node not in context.skip:
            ops += _read(node, context)
    inputs, outputs = tuple(graph.inputs), tuple(graph.outputs)
    read = Graph(tuple(_kept_for_others(ops)), context.shapes, inputs, outputs, precision)
    return Reading(context, read, tuple(labels[node] for node in norms))


def _read(node: ir.Node, context: Context) -> list[Op]:
    """What one node means."""
    is_onnx = node.domain in ONNX_DOMAINS
    if not is_onnx or node.op_type in CONTROL_FLOW:
        captured = _captured(node)
        if captured or bodies(node):
            xs = tuple(v for v in {*node.inputs, *captured} if v is not None and not context.is_const(v))
            return [Rigid(context.label(node), xs, tuple(node.outputs), Reason.BOUNDARY)]
    reader = READERS.get(node.op_type) if is_onnx else None
    if is_onnx and context.norm_affine and node.op_type in CHANNEL_AXIS:
        reader = read_norm
    if reader is None:
        return context.rigid(node, Reason.NONLINEAR if is_onnx else Reason.BOUNDARY)
    if node.op_type in SHAPE_ONLY:
        return reader(node, context)
    features = [v for v in node.inputs if v is not None and not context.is_const(v)]
    batch_norm = node.op_type == "BatchNormalization"
    reason = None
    if not features or node.inputs[0] is None:
        reason = (not_at_inference(node) if batch_norm else None) or Reason.IO  # a constant that is handed out
    elif not all(_is_sized(context.shape(value)) for value in (*features, *node.outputs[:1])):
        reason = Reason.BOUNDARY
    elif node.outputs[0].dtype not in FLOATS:
        reason = Reason.DTYPE
    if reason is None:
        ops = reader(node, context)
        return ops if all(_fits(op, context) for op in ops) else context.rigid(node, Reason.BOUNDARY)
    if batch_norm:
        context.kept[context.label(node)] = reason
    return context.rigid(node, reason)


def _kept_for_others(ops: Sequence[Op]) -> list[Op]:
    """The operators, with a weight frozen where somebody else reads it who is no linear operator here.

    Such a reader looks like the others and is rigid, as a Conv whose bias the caller may override: what is written into
    the weight would change it, too.
    """
    readers = Counter(op.weight for op in ops if isinstance(op, (Linear, Recurrent)))

    def kept(op: Op) -> Op:
        if not isinstance(op, (Linear, Recurrent)) or op.frozen is not None or not isinstance(op.weight, ir.Value):
            return op
        others = len(op.weight.uses()) > readers[op.weight]
        return replace(op, frozen=Reason.SHARED_WEIGHT) if others else op

    return [kept(op) for op in ops]


def _fits(op: Op, context: Context) -> bool:
    """Whether a linear operator has as many channels as the shapes around it, which a broken model may contradict."""
    if not isinstance(op, Linear):
        return True
    x, y = context.shape(op.x), None if op.y is None else context.shape(op.y)  # type: ignore[arg-type]
    return _has(x, op.x_axis, op.kernel.in_channels) and _has(y, op.y_axis, op.kernel.out_channels)


def _has(shape: Shape | None, axis: int, channels: int) -> bool:
    if shape is None:
        return True
    if not -len(shape) <= axis < len(shape):
        return False
    size = shape[axis]
    return not isinstance(size, int) or size == channels


def _is_sized(shape: Shape | None) -> bool:
    """Whether a value has a known rank and may have elements."""
    return shape is not None and 0 not in shape


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values of enclosing graphs that the bodies of a control-flow node read."""
    values: list[ir.Value] = []
    for body in bodies(node):
        for inner in nodes_within(body):
            values += [v for v in inner.inputs if v is not None and v.graph is node.graph]
        values += [v for v in body.outputs if v.graph is node.graph]
    return values
