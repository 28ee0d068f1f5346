"""PyTorch in, PyTorch out: read an exported program into the solver's graph, make the plan, apply it to a copy.

    program ──functional copy──> read → plan → edits ──> program without BatchNorms
                                                  └───> module without BatchNorms (`modules.py`)

What the solver and the laws do is the same as for ONNX; so are, for one network, the sites and their fate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import fx
from torch.export import ExportedProgram

from bnfold.errors import UnsupportedError
from bnfold.frontends.aten.context import FLOATS, Context, constant_tensors
from bnfold.frontends.aten.edits import Edits, find_edits, find_misfits
from bnfold.frontends.aten.functional import functional
from bnfold.frontends.aten.nodes import BATCH_NORMS, element, fake, module_stack, opname, results
from bnfold.frontends.aten.readers import READERS
from bnfold.frontends.aten.rewrite import rewrite_program
from bnfold.graph import Graph, Op, Rigid, Value
from bnfold.plan import Folding, Plan, Site, make_plan
from bnfold.reasons import Reason

TAKES_SIZES = frozenset(
    {
        "_unsafe_view",
        "_reshape_alias",
        "broadcast_to",
        "expand",
        "narrow",
        "pad",
        "constant_pad_nd",
        "repeat",
        "reshape",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "sym_size",
        "unflatten",
        "unsafe_split",
        "upsample_bicubic2d",
        "upsample_bilinear2d",
        "upsample_linear1d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_trilinear3d",
        "view",
    }
)


@dataclass(frozen=True)
class Reading:
    """One exported program, read.

    Attributes:
        program: In functional form; a copy that may be changed, its tensors shared with what came in.
        context: What the readers knew.
        graph: The same program as the solver sees it.
        order: Labels of the BatchNorms, in graph order.
        constant_norms: BatchNorms that normalise constants, which need no run.
    """

    program: ExportedProgram
    context: Context
    graph: Graph
    order: tuple[str, ...]
    constant_norms: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Planned:
    """A plan and what it means for the nodes of the program.

    Attributes:
        reading: What was read.
        plan: The fate of every BatchNorm.
        edits: What to change.
    """

    reading: Reading
    plan: Plan
    edits: Edits


def fold_program(program: ExportedProgram) -> tuple[ExportedProgram, Plan]:
    """Remove every BatchNorm that a change of units can remove.

    Args:
        program: What `torch.export.export` returned; not changed.

    Returns:
        A new program with the same inputs, outputs, dynamic shapes and function, and the plan that was carried out.
    """
    planned = plan_program(read_program(program))
    return rewrite_program(planned.reading.program, planned.edits, planned.reading.context), planned.plan


def read_program(
    program: ExportedProgram,
    held: frozenset[str] = frozenset(),
    observed: frozenset[str] = frozenset(),
    *,
    own: bool = False,
) -> Reading:
    """Translate an exported program.

    Args:
        program: What was exported.
        held: Names of nodes that must stay as they are.
        observed: Paths of modules whose inputs and outputs something else looks at.
        own: Whether the program is only a means: its graph may be changed, and its sizes are not the only ones.
    """
    copied = functional(program, own=own)
    graph = copied.graph
    context = Context(graph, constant_tensors(copied.graph_signature, graph, copied), held, any_size=own)
    if any(tensor.device.type == "meta" for tensor in copied.state_dict.values() if isinstance(tensor, torch.Tensor)):
        raise UnsupportedError(
            "the model's weights are on the meta device: there are no numbers to fold",
            "Load the weights first, e.g. by model.to_empty(device='cpu') and model.load_state_dict(...).",
        )
    nodes = list(graph.nodes)
    ops: list[Op] = []
    order: list[str] = []
    constant_norms: list[fx.Node] = []
    bits = [53]
    for node in nodes:
        is_norm = opname(node) in BATCH_NORMS
        if is_norm and context.is_const(element(node, 0)[0] if fake(node) is None and element(node, 0) else node):
            constant_norms.append(node)
            continue
        if is_norm:
            order.append(context.label(node))
            bits += [FLOATS.get(value.dtype, 53) for n in results(node)[:1] if (value := fake(n)) is not None]
        ops += _read(node, context)
    _count_inner_norms(copied.graph_module, context, order)
    ops += _held_by_hooks(nodes, context, observed, order)
    outputs = tuple(n for node in nodes if node.op == "output" for n in node.all_input_nodes if context.feature(n))
    inputs = tuple(node for node in nodes if node.op == "placeholder" and context.feature(node))
    read = Graph(tuple(ops), context.shapes, inputs, outputs, min(bits))
    return Reading(copied, context, read, tuple(order), tuple(constant_norms))


def plan_program(reading: Reading) -> Planned:
    """Decide what becomes of every BatchNorm of a program, and what that means for its nodes."""
    context = reading.context
    folding = make_plan(reading.graph, context.kept, reading.order, find=partial(find_misfits, context))
    edits = find_edits(reading.graph, folding, context, reading.constant_norms)
    gone = tuple(
        Site(context.label(norm), "BatchNormalization", "folded", _constant_readers(norm, context))
        for norm in reading.constant_norms
    )
    return Planned(reading, _named(folding, gone), edits)


def _named(folding: Folding, gone: tuple[Site, ...]) -> Plan:
    plan = folding.plan
    return Plan((*gone, *plan.sites), plan.affines)


def _constant_readers(norm: fx.Node, context: Context) -> tuple[str, ...]:
    """The operators that read what becomes of a normalised constant."""
    found: dict[str, None] = {}
    queue = [norm]
    while queue:
        for user in queue.pop(0).users:
            if context.is_const(user):
                queue.append(user)
            elif user.op != "output":
                found[context.label(user)] = None
    return tuple(found)


def _read(node: fx.Node, context: Context) -> list[Op]:
    """What one node means."""
    if node.op != "call_function" or context.is_const(node) or node.target.__name__ == "getitem":  # type: ignore[union-attr]
        return []
    reader = READERS.get(opname(node))
    if reader is None:
        return context.rigid(node, Reason.NONLINEAR if opname(node) else Reason.BOUNDARY)
    if opname(node) in BATCH_NORMS:
        return reader(node, context)
    made = results(node)
    tensors = [fake(n) for n in made]
    if not made or any(tensor is None for tensor in tensors) or not _first_is_feature(node, context):
        return context.rigid(node, Reason.BOUNDARY)
    if any(tensor.dtype not in FLOATS for tensor in tensors if tensor is not None):
        return context.rigid(node, Reason.DTYPE)
    if any(0 in context.shape(n) for n in (*made, *context.features(node))):
        return context.rigid(node, Reason.BOUNDARY)
    computed = any(fake(n) is None and not isinstance(n.meta.get("val"), list | tuple) for n in node.all_input_nodes)
    if computed and opname(node) not in TAKES_SIZES:
        return context.rigid(node, Reason.NOT_CONSTANT)
    return reader(node, context)


def _first_is_feature(node: fx.Node, context: Context) -> bool:
    """Whether what an operator works on depends on the inputs; of those that name it differently, readers ask."""
    if opname(node) in ANY_PLACE:
        return bool(context.features(node))
    return bool(node.args) and context.feature(node.args[0])


ANY_PLACE = frozenset(
    {"add", "addmm", "bmm", "cat", "concat", "concatenate", "div", "embedding", "matmul", "maximum", "minimum", "mm"}
    | {"mul", "multiply", "rsub", "stack", "sub", "subtract", "true_divide", "where"}
)


def _count_inner_norms(module: fx.GraphModule, context: Context, order: list[str]) -> None:
    """BatchNorms in the bodies of control flow stay: what enters and leaves a body keeps its unit."""
    for name, body in module.named_modules():
        if body is module or not isinstance(body, fx.GraphModule):
            continue
        for node in body.graph.nodes:
            if opname(node) in BATCH_NORMS:
                stack = module_stack(node)
                label = f"{name}.{stack[-1] if stack and stack[-1] else node.name}"
                order.append(label)
                context.kept[label] = Reason.BOUNDARY


def _held_by_hooks(nodes: list[fx.Node], context: Context, observed: frozenset[str], order: list[str]) -> list[Op]:
    """A hook looks at what enters and leaves its module."""
    ops: list[Op] = []
    for path in sorted(observed):
        inside = {node for node in nodes if path in module_stack(node) or path == ""}
        crossing: dict[Value, None] = {}
        for node in inside:
            crossing.update({n: None for n in node.all_input_nodes if n not in inside and context.feature(n)})
            if any(user not in inside for user in node.users):
                crossing.update({n: None for n in results(node) if context.feature(n)})
        if crossing:
            ops.append(Rigid(f"{path or 'model'}#hook", tuple(crossing), (), Reason.HOOK))
    return ops
