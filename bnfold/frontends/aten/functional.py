"""An exported program in functional form: every node makes a new value and none changes one.

What is written in place to a value that nobody else sees is the same operator without its underscore; anything less
plain is left to torch's own functionalisation.
"""

from __future__ import annotations

import copy

import torch
from torch import fx
from torch.export import ExportedProgram

from bnfold.errors import UnsupportedError

WRITTEN = "bnfold_written_in_place"  # mark of a node that wrote in place before it was made functional


def functional(program: ExportedProgram, *, own: bool = False) -> ExportedProgram:
    """A program in functional form; tensors are shared with the original, tables of them are not.

    Args:
        program: Any exported program.
        own: Whether its graph may be changed, which saves a copy.
    """
    if any(writes(node) and not _is_private(node) for node in program.graph.nodes):
        try:
            decomposed: ExportedProgram = program.run_decompositions({})
        except Exception as error:
            raise UnsupportedError(
                f"torch.export cannot write the program in functional form: {str(error).splitlines()[0][:200]}",
                "Call program.run_decompositions({}) yourself to see the full report.",
            ) from error
        return decomposed
    made = program if own else copied_program(program)
    for node in made.graph.nodes:
        if writes(node):
            node.meta[WRITTEN] = True
            node.target = _counterpart(node)
    return made


def copied_program(program: ExportedProgram) -> ExportedProgram:
    """The same program with a graph of its own; the tensors are shared."""
    graph = copy.deepcopy(program.graph)
    module = fx.GraphModule(program.graph_module, graph)
    module.meta.update(program.graph_module.meta)
    for before, after in zip(program.graph.nodes, graph.nodes, strict=True):
        after.name = before.name  # a copy renames what is named like a builtin, and the signature goes by name
    return program._update(
        module,
        copy.deepcopy(program.graph_signature),
        state_dict=dict(program.state_dict),
        constants=dict(program.constants),
    )


def wrote(node: fx.Node) -> bool:
    """Whether a node writes to one of its arguments, or did before it was made functional."""
    return writes(node) or WRITTEN in node.meta


def writes(node: fx.Node) -> bool:
    """Whether a node writes to one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _counterpart(node: fx.Node) -> object:
    """The operator that makes a new value instead of writing in place; None where there is none of that name."""
    assert isinstance(node.target, torch._ops.OpOverload)
    name, variant = str(node.target._opname), str(node.target._overloadname) or "default"
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    if node.target.namespace != "aten" or not name.endswith("_") or packet is None or variant not in packet.overloads():
        return None
    return getattr(packet, variant)


def _is_private(node: fx.Node) -> bool:
    """Whether what a node writes to is seen by nobody else, through any view of it."""
    written = [a.name for a in node.target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]  # type: ignore[union-attr]
    if len(written) != 1 or _counterpart(node) is None or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    value = node.args[0]
    if value.meta["val"].dtype != node.meta["val"].dtype:
        return False
    while value.op == "call_function":
        if len(value.users) != 1 or not isinstance(value.target, torch._ops.OpOverload):
            return False
        if not may_alias(value):
            return True
        if not value.args or not isinstance(value.args[0], fx.Node):
            return False
        value = value.args[0]
    return False


def may_alias(node: fx.Node) -> bool:
    """Whether a node's result may be memory of its first argument."""
    assert isinstance(node.target, torch._ops.OpOverload)
    returns = node.target._schema.returns
    if any(r.alias_info is not None for r in returns):
        return True
    return node.target._opname in ("contiguous", "dropout", "flatten", "reshape", "reshape_as", "to", "type_as")
