"""ONNX in, ONNX out: read a model into the solver's graph, make the plan, apply it to a copy.

    model ──copy──> inline functions ──> fold constants ──> per graph: (read → merge branches)* → plan → rewrite
    ──> model without BatchNorms

The order is the whole of this file; `reading`, `merge` and `rewrite` do the steps.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from bnfold.branches.search import may_merge
from bnfold.frontends.constants import fold_constants
from bnfold.frontends.context import (
    Context,
    graphs_within,
    nodes_within,
    value_names,
)
from bnfold.frontends.edit import Store, in_memory
from bnfold.frontends.inline import inlined
from bnfold.frontends.merge import Merger, held_values, merges_of
from bnfold.frontends.paths import module_path
from bnfold.frontends.reading import read_graph
from bnfold.frontends.rewrite import find_misfits, rewrite_graph
from bnfold.frontends.shapes import complete_shapes
from bnfold.frontends.tidy import settle, tidy
from bnfold.planning.choices import AS_USUAL, Choices
from bnfold.planning.exclusion import excluded
from bnfold.planning.ledger import Ledger
from bnfold.planning.plan import Plan, Site, make_plan
from bnfold.planning.reach import Misfits, is_tame
from bnfold.planning.sharing import Allowance, budget_bytes
from bnfold.units.graph import Graph
from bnfold.units.solver import Solution
from bnfold.units.system import System


def fold_model(
    model: ir.Model, choices: Choices = AS_USUAL, *, copy: bool = True, store: Store = in_memory
) -> tuple[ir.Model, Plan]:
    """Remove every BatchNorm that a change of units can remove.

    Args:
        model: Any ONNX model.
        copy: Whether to leave `model` as it is; a caller that does not need it any more saves time without.
        choices: How to fold it.
        store: Keeps new weights; the new model reads them where they are kept.

    Returns:
        A new model with the same inputs, outputs and function, and the plan that was carried out.
    """
    with without_pauses():
        prepared = prepare(model.clone() if copy else model, store)
        return prepared.model, carry_out(_with_excluded(prepared, choices), choices)


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
        labels: A unique name for every node.
        names: The names of all values.
        constant_norms: BatchNorms that normalised constants and are gone already.
        store: Keeps new weights.
        excluded: The BatchNorms that the caller wants to keep.
    """

    model: ir.Model
    labels: dict[ir.Node, str]
    names: set[str]
    constant_norms: tuple[Site, ...]
    store: Store = in_memory
    excluded: frozenset[ir.Node] = frozenset()

    def joined(self, plans: list[Plan]) -> Plan:
        """One plan for all graphs of the model."""
        sites = (*self.constant_norms, *(s for p in plans for s in p.sites))
        return Plan(sites, tuple(s for p in plans for s in p.affines), sum(p.growth for p in plans))


def prepare(model: ir.Model, store: Store = in_memory) -> Prepared:
    """Make a model readable, in place."""
    model = inlined(model)
    for node in nodes_within(model.graph):
        node.version = model.opset_imports.get(node.domain, node.version)
    names = value_names(model.graph)
    labels: dict[ir.Node, str] = {}
    label_nodes(model, labels)
    norms = fold_constants(model, names, store)
    changed = tidy(model)
    while complete_shapes(model):  # a type that was not known may make a constant, a shape a Split
        norms |= fold_constants(model, names, store)
        changed = tidy(model) or changed
    if changed:
        names = value_names(model.graph)
        label_nodes(model, labels)
    gone = tuple(
        Site(labels[norm], norm.op_type, "folded", tuple(labels.get(n, n.name or n.op_type) for n in readers))
        for norm, readers in norms.items()
    )
    return Prepared(model, labels, names, gone, store)


def _with_excluded(prepared: Prepared, choices: Choices) -> Prepared:
    """The same, knowing what the caller wants to keep."""
    if not choices.exclude:
        return prepared
    norms = [node for node in nodes_within(prepared.model.graph) if node.op_type == "BatchNormalization"]
    places = {prepared.labels[node]: ".".join(module_path(node, prepared.labels[node])) for node in norms}
    named = excluded(choices.exclude, places)
    return replace(prepared, excluded=frozenset(node for node in norms if prepared.labels[node] in named))


def carry_out(prepared: Prepared, choices: Choices) -> Plan:
    """Merge and fold every graph of a model in place, until there is nothing left to do."""
    model = prepared.model
    graphs = graphs_within(model.graph)
    stored = [value for graph in graphs for value in graph.initializers.values()]
    ledgers: dict[ir.Graph, Ledger] = {}

    def left() -> float:
        grown = sum(ledger.growth for ledger in ledgers.values())
        return budget_bytes(choices.duplicate, sum(map(_nbytes, stored))) - grown

    def rounds(chosen: Choices, *, anew: bool) -> None:
        for graph in graphs:
            _fold_graph(graph, prepared, ledgers, chosen, left, anew=anew)
        # Padding that is a convolution's own now, or twins, may be branches.
        while (settled := settle(model, prepared.excluded)).changed:
            for norm, twin in settled.norms:
                ledgers[model.graph].same(prepared.labels.pop(norm), prepared.labels[twin])
            label_nodes(model, prepared.labels)
            for graph in graphs:
                _fold_graph(graph, prepared, ledgers, chosen, left, anew=settled.weighted)

    rounds(replace(choices, leftover="keep"), anew=False)
    if choices.leftover != "keep":  # only when it is clear which BatchNorms stay
        label_nodes(model, prepared.labels)
        rounds(choices, anew=True)
    return prepared.joined([ledger.plan() for ledger in ledgers.values()])


def _fold_graph(
    graph: ir.Graph,
    prepared: Prepared,
    ledgers: dict[ir.Graph, Ledger],
    choices: Choices,
    left: Callable[[], float],
    *,
    anew: bool = False,
) -> None:
    """Merge branches, then fold; again where the one made room for the other, or where that is asked for."""
    unsolved, again = graph not in ledgers or (anew and ledgers[graph].plan().kept > 0), True
    while again:
        nodes = list(graph)
        reading = read_graph(
            graph, prepared.labels, prepared.names, choices.norm_affine, prepared.store, prepared.excluded
        )
        ledger = ledgers.setdefault(graph, Ledger(reading.order, reading.graph))
        sums = merges_of(graph, reading.context, reading.graph)
        if not sums and not unsolved:
            return
        if sums:
            Merger(graph, reading.context, reading.graph).run(sums)
            ledger.merged(sums, reading.graph)
            unsolved = True
        else:
            allowance = Allowance(_nbytes, left)
            find = partial(_misfits, graph, reading.context, choices.leftover)
            folding = make_plan(reading.graph, reading.context.kept, reading.order, choices.leftover, allowance, find)
            ledger.folded(folding.plan)
            again = may_merge(reading.graph, held_values(graph), folding.solution.removed)
            again = again or (choices.leftover == "conv" and folding.plan.kept > 0)  # a depthwise Conv may be a branch
            rewrite_graph(graph, folding, reading.context, choices.leftover)
            # Without channels in front of them, constants that vary by position have a unit at each of their elements.
            unsolved = bool(folding.system.offsets and folding.solution.removed)
            # A weight in front of a gamma of 0 is 0 now, and lets more pass.
            unsolved = unsolved or (folding.plan.kept > 0 and _some_are_dead(folding.system, folding.solution))
            again = again or unsolved
        for node in nodes:
            if node.graph is None:
                prepared.labels.pop(node, None)
        if again:
            label_nodes(prepared.model, prepared.labels)
            complete_shapes(prepared.model)


def _some_are_dead(system: System, solution: Solution) -> bool:
    """Whether a BatchNorm with a gamma of 0 vanished."""
    return any(c.op.name in solution.removed and not c.scale.all() for c in system.candidates)


def _nbytes(stored: object) -> int:
    """The size of a stored weight."""
    tensor = stored.const_value if isinstance(stored, ir.Value) else None
    return 0 if tensor is None else tensor.nbytes


def _misfits(
    graph: ir.Graph, context: Context, leftover: str, read: Graph, system: System, solution: Solution
) -> Misfits:
    """The views of a system whose new weights would not fit the dtype they are stored in.

    Only float16 ends within the reach of ordinary units; elsewhere nothing is computed unless units are extreme.
    """
    half = any(v is not None and v.dtype is ir.DataType.FLOAT16 for node in graph for v in node.inputs)
    if not half and is_tame(solution):
        return Misfits()
    return find_misfits(graph, read, system, solution, context, leftover)


def label_nodes(model: ir.Model, labels: dict[ir.Node, str]) -> None:
    """Give every node that has none yet a unique label: its own name where it has one."""
    used = set(labels.values())
    for i, node in enumerate(nodes_within(model.graph)):
        if node in labels:
            continue
        name = node.name or f"{node.op_type}_{i}"
        label, n = name, 2
        while label in used:
            label, n = f"{name}#{n}", n + 1
        used.add(label)
        labels[node] = label
