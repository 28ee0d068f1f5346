"""An exported program as the solver's graph: every node goes to its reader, what nobody can vouch for is rigid.

What the solver and the laws do is the same as for ONNX; so are, for one network, the sites and their fate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from bnfold.errors import UnsupportedError
from bnfold.frontends.aten.context import FLOATS, Context
from bnfold.frontends.aten.editor import Editor, value_of
from bnfold.frontends.aten.nodes import BATCH_NORMS, fake, module_stack, opname, results
from bnfold.frontends.aten.normalisations import CHANNEL_AXIS
from bnfold.frontends.aten.readers import READERS
from bnfold.planning.choices import AS_USUAL, Choices
from bnfold.planning.plan import Site
from bnfold.reasons import Reason
from bnfold.units.graph import Graph, Op, Rigid, Value

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
class View:
    """How a program is looked at.

    Attributes:
        held: Names of nodes that must stay as they are.
        observed: Paths of modules whose inputs and outputs something else looks at.
        any_size: Whether the sizes of the program are not the only ones.
    """

    held: frozenset[str] = frozenset()
    observed: frozenset[str] = frozenset()
    any_size: bool = False


AS_IT_IS = View()


@dataclass(frozen=True)
class Reading:
    """One exported program, read.

    Attributes:
        editor: The program.
        context: What the readers knew.
        graph: The same program as the solver sees it.
        order: Labels of the BatchNorms, in graph order.
        constant_norms: BatchNorms that normalise constants, which need no run.
    """

    editor: Editor
    context: Context
    graph: Graph
    order: tuple[str, ...]
    constant_norms: tuple[fx.Node, ...]

    def constant_sites(self) -> tuple[Site, ...]:
        """The fate of those that normalise constants."""
        context = self.context
        return tuple(
            Site(context.label(norm), "BatchNormalization", "folded", _constant_readers(norm, context))
            for norm in self.constant_norms
        )


def read_program(editor: Editor, view: View = AS_IT_IS, choices: Choices = AS_USUAL) -> Reading:
    """Translate a program as it is now.

    Args:
        editor: The program.
        view: How it is looked at.
        choices: How it will be folded.
    """
    graph = editor.graph
    context = Context(
        graph,
        editor.tensors(),
        view.held,
        editor.labels,
        any_size=view.any_size,
        norm_affine=choices.norm_affine,
        exclude=choices.exclude,
    )
    if any(tensor.device.type == "meta" for tensor in editor.state.values() if isinstance(tensor, torch.Tensor)):
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
        if is_norm and context.is_const(value_of(node)):
            constant_norms.append(node)
            continue
        if is_norm:
            order.append(context.label(node))
        if is_norm or (choices.norm_affine and opname(node) in CHANNEL_AXIS):
            bits += [FLOATS.get(value.dtype, 53) for n in results(node)[:1] if (value := fake(n)) is not None]
        ops += _read(node, context)
    _count_inner_norms(editor.program.graph_module, context, order)
    ops += _held_by_hooks(nodes, context, view.observed, order)
    outputs = tuple(n for node in nodes if node.op == "output" for n in node.all_input_nodes if context.feature(n))
    inputs = tuple(node for node in nodes if node.op == "placeholder" and context.feature(node))
    read = Graph(tuple(ops), context.shapes, inputs, outputs, min(bits))
    return Reading(editor, context, read, tuple(order), tuple(constant_norms))


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
