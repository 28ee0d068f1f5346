"""ONNX in, ONNX out: read a model into the solver's graph, make the plan, apply it to a copy.

    model ──copy──> inline functions ──> fold constants ──> per graph: read → plan → rewrite ──> model without
    BatchNorms

Bodies of If, Loop and Scan are graphs of their own: what they capture from outside, and what enters and leaves them, is
rigid.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from bnfold.frontends.constants import fold_constants
from bnfold.frontends.context import (
    FLOATS,
    ONNX_DOMAINS,
    PRECISION,
    Context,
    bodies,
    graphs_within,
    nodes_within,
    not_at_inference,
    value_names,
)
from bnfold.frontends.readers import READERS
from bnfold.frontends.rewrite import rewrite_graph
from bnfold.frontends.shapes import complete_shapes
from bnfold.frontends.tidy import settle, tidy
from bnfold.graph import Graph, Op, Rigid
from bnfold.plan import Folding, Plan, Site, make_plan
from bnfold.reasons import Reason

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


def fold_model(model: ir.Model, *, copy: bool = True) -> tuple[ir.Model, Plan]:
    """Remove every BatchNorm that a change of units can remove.

    Args:
        model: Any ONNX model.
        copy: Whether to leave `model` as it is; a caller that does not need it any more saves time without.

    Returns:
        A new model with the same inputs, outputs and function, and the plan that was carried out.
    """
    with without_pauses():
        prepared = prepare(model.clone() if copy else model)
        plans = []
        for graph, folding, reading in _foldings(prepared):
            rewrite_graph(graph, folding, reading.context, reading.graph)
            plans.append(folding.plan)
        settle(prepared.model)
    return prepared.model, prepared.joined(plans)


def plan_model(model: ir.Model) -> Plan:
    """What `fold_model` would do, without doing it."""
    with without_pauses():
        prepared = prepare(model.clone())
        return prepared.joined([folding.plan for _, folding, _ in _foldings(prepared)])


@contextmanager
def without_pauses() -> Iterator[None]:
    """Keep the cyclic garbage collector from walking the whole model again and again while objects are made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class Prepared:
    """A model ready to be read.

    Attributes:
        model: With local functions inlined, constants folded, and shapes inferred where they were missing.
        constant_norms: BatchNorms that normalised constants and are gone already.
    """

    model: ir.Model
    constant_norms: tuple[Site, ...]

    def joined(self, plans: list[Plan]) -> Plan:
        """One plan for all graphs of the model."""
        sites = (*self.constant_norms, *(s for p in plans for s in p.sites))
        return Plan(sites, tuple(s for p in plans for s in p.affines))


def prepare(model: ir.Model) -> Prepared:
    """Make a model readable, in place."""
    if model.functions:
        model = InlinePass()(model).model
    for node in nodes_within(model.graph):
        node.version = model.opset_imports.get(node.domain, node.version)
    labels = _labels(model)
    norms = fold_constants(model)
    complete_shapes(model)
    if tidy(model):
        complete_shapes(model)
    gone = tuple(
        Site(labels[norm], norm.op_type, "folded", tuple(labels.get(n, n.name or n.op_type) for n in readers))
        for norm, readers in norms.items()
    )
    return Prepared(model, gone)


def _foldings(prepared: Prepared) -> Iterator[tuple[ir.Graph, Folding, Reading]]:
    model = prepared.model
    labels = _labels(model, {site.name for site in prepared.constant_norms})
    names = value_names(model.graph)
    for graph in graphs_within(model.graph):
        reading = read_graph(graph, labels, names)
        yield graph, make_plan(reading.graph, reading.context.kept, reading.order), reading


def _labels(model: ir.Model, taken: Collection[str] = ()) -> dict[ir.Node, str]:
    """A unique name for every node: its own where it has one."""
    labels: dict[ir.Node, str] = {}
    used = set(taken)
    for i, node in enumerate(nodes_within(model.graph)):
        name = node.name or f"{node.op_type}_{i}"
        label, n = name, 2
        while label in used:
            label, n = f"{name}#{n}", n + 1
        used.add(label)
        labels[node] = label
    return labels


def read_graph(graph: ir.Graph, labels: dict[ir.Node, str], names: set[str]) -> Reading:
    """Translate one ONNX graph; bodies of control flow are left to their own turn."""
    context = Context(graph, labels, names)
    ops: list[Op] = []
    order: list[str] = []
    precision = 53
    for node in graph:
        if node.op_type == "BatchNormalization" and node.domain in ONNX_DOMAINS:
            order.append(labels[node])
            precision = min(precision, PRECISION.get(node.outputs[0].dtype, 53))  # type: ignore[arg-type]
        if node in context.skip:
            continue
        ops += _read(node, context)
    inputs = tuple(v for v in graph.inputs)
    for value in (v for node in graph for v in (*node.inputs, *node.outputs) if v is not None):
        context.shape(value)
    outputs = tuple(graph.outputs)
    return Reading(context, Graph(tuple(ops), context.shapes, inputs, outputs, precision), tuple(order))


def _read(node: ir.Node, context: Context) -> list[Op]:
    """What one node means."""
    captured = _captured(node)
    if captured or bodies(node):
        xs = tuple(v for v in {*node.inputs, *captured} if v is not None and not context.is_const(v))
        return [Rigid(context.label(node), xs, tuple(node.outputs), Reason.BOUNDARY)]
    known = node.domain in ONNX_DOMAINS and node.op_type in READERS
    features = [v for v in node.inputs if v is not None and not context.is_const(v)]
    if known and node.op_type in SHAPE_ONLY:
        return READERS[node.op_type](node, context)
    batch_norm = node.op_type == "BatchNormalization" and node.domain in ONNX_DOMAINS
    reason = None
    if not known:
        reason = Reason.NONLINEAR if node.domain in ONNX_DOMAINS else Reason.BOUNDARY
    elif not features or node.inputs[0] is None:
        reason = (not_at_inference(node) if batch_norm else None) or Reason.IO  # a constant that is handed out
    elif any(context.shape(v) is None or 0 in (context.shape(v) or ()) for v in (*features, *node.outputs[:1])):
        reason = Reason.BOUNDARY
    elif node.outputs[0].dtype not in FLOATS:
        reason = Reason.DTYPE
    if reason is None:
        return READERS[node.op_type](node, context)
    if batch_norm:
        context.kept[context.label(node)] = reason
    return context.rigid(node, reason)


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values of enclosing graphs that the bodies of a control-flow node read."""
    values: list[ir.Value] = []
    for body in bodies(node):
        for inner in nodes_within(body):
            values += [v for v in inner.inputs if v is not None and v.graph is node.graph]
        values += [v for v in body.outputs if v.graph is node.graph]
    return values
