"""PyTorch networks as something to run: what they take, and how arrays by name become a call.

A network is a module with an example of how it is called, or an exported program, which says so itself. Inputs are
called as torch.onnx.export calls them; outputs by their place in what forward returns: `output`, or `output_0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from bnfold.data.feeds import InputDecl
from bnfold.data.tensors import declared_type, dtype_name, named_leaves
from bnfold.errors import UnsupportedError, UsageError
from bnfold.quiet import quiet
from bnfold.running.runners import Declared
from bnfold.tracing.examples import Example

Call = tuple[tuple[Any, ...], dict[str, Any]]

LARGEST_TRIED_BATCH = 3


@dataclass(frozen=True)
class Network:
    """Something that PyTorch runs.

    Attributes:
        module: What is called.
        declared: The tensors it takes.
        outputs: Type and dimensions of what it returns, by name; None where only a run can tell.
        bind: Arguments from tensors by name.
        fixed: Whether its inputs have the sizes of an example, and others may not be right.
        example: How a module is called; None where a program says so itself.
        program: The program that came in; None for a module.
        traces: What torch.export made of the module, by the dimensions that were left open (`traces`): the program, or
            why there is none.
    """

    module: torch.nn.Module
    declared: tuple[InputDecl, ...]
    outputs: Declared | None
    bind: Callable[[Mapping[str, torch.Tensor]], Call]
    fixed: bool
    example: Example | None = None
    program: ExportedProgram | None = None
    traces: dict[str, ExportedProgram | str] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def inputs(self) -> Declared:
        """Type and dimensions of what it takes, by name; no dimensions where only an example is known."""
        return {
            decl.name: (declared_type(getattr(torch, decl.dtype)), None if self.fixed else decl.shape)
            for decl in self.declared
        }


def of_module(module: torch.nn.Module, example: Example) -> Network:
    """A module that is called as an example is."""
    tensors = example.tensors()
    declared = tuple(
        InputDecl(name, tuple(t.shape), dtype_name(t.dtype), (None,) * t.ndim) for name, t in tensors.items()
    )

    def bind(given: Mapping[str, torch.Tensor]) -> Call:
        arguments = example.map(lambda name, leaf: given[name] if isinstance(leaf, torch.Tensor) else leaf)
        return Example(example.signature, arguments).call()

    return Network(module, declared, None, bind, fixed=True, example=example)


def of_program(program: ExportedProgram, label: str) -> Network:
    """An exported program.

    Raises:
        UnsupportedError: It takes numbers that vary, or has no form that can be called.
    """
    leaves: list[Any] = []
    declared: list[InputDecl] = []
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, ConstantArgument):
            leaves.append(spec.arg.value)
        elif isinstance(spec.arg, TensorArgument):
            leaves.append(InputDecl)
            declared.append(_declaration(placeholders[spec.arg.name], program))
        else:
            raise UnsupportedError(
                f"{label} takes a number that varies ({spec.arg.name}); only tensors are fed",
                "Export it with that number fixed, or as a tensor.",
            )
    with quiet():
        try:
            module = program.module()
        except Exception as error:
            raise UnsupportedError(
                f"{label} cannot be called: {str(error).splitlines()[0][:200]}",
                "Call program.module() yourself to see the full report.",
            ) from error

    def bind(given: Mapping[str, torch.Tensor]) -> Call:
        tensors = iter(given[decl.name] for decl in declared)
        assert program.call_spec.in_spec is not None
        args, kwargs = pytree.tree_unflatten(
            [next(tensors) if leaf is InputDecl else leaf for leaf in leaves], program.call_spec.in_spec
        )
        return tuple(args), dict(kwargs)

    return Network(module, tuple(declared), returned(program), bind, fixed=False, program=program)


def _declaration(node: fx.Node, program: ExportedProgram) -> InputDecl:
    """An input as the program declares it, with the sizes it was traced with."""
    value = node.meta["val"]
    shape, symbols, hints = [], [], []
    for dim in value.shape:
        hint = dim if isinstance(dim, int) else getattr(dim.node, "hint", None)
        is_open = isinstance(dim, torch.SymInt) and (hint is None or _takes_any_batch(dim, program))
        shape.append(None if is_open else int(hint if hint is not None else dim))
        symbols.append(str(dim.node.expr) if isinstance(dim, torch.SymInt) and is_open else None)
        hints.append(hint)
    return InputDecl(node.name, tuple(shape), dtype_name(value.dtype), tuple(symbols), tuple(hints))


def _takes_any_batch(dim: torch.SymInt, program: ExportedProgram) -> bool:
    """Whether an open dimension may be 1, 2 and 3; torch declares 2 as the least where it means 1."""
    allowed = program.range_constraints.get(dim.node.expr)
    return allowed is not None and bool(allowed.lower <= 2 and allowed.upper >= LARGEST_TRIED_BATCH)


def returned(program: ExportedProgram) -> Declared | None:
    """Type and dimensions of what a program returns, by name; None where that is not tensors alone."""
    [output] = [node for node in program.graph.nodes if node.op == "output"]
    specs, spec = program.graph_signature.output_specs, program.call_spec.out_spec
    leaves = [
        getattr(arg, "meta", {}).get("val", arg)
        for each, arg in zip(specs, output.args[0], strict=True)
        if each.kind is OutputKind.USER_OUTPUT
    ]
    if spec is None or spec.num_leaves != len(leaves):
        return None
    named = named_leaves("output", pytree.tree_unflatten(leaves, spec))
    if not all(isinstance(leaf, torch.Tensor) for leaf in named.values()):
        return None
    return {
        name: (declared_type(leaf.dtype), tuple(d if isinstance(d, int) else None for d in leaf.shape))
        for name, leaf in named.items()
    }


def refuse_training(module: torch.nn.Module, label: str) -> None:
    """Refuses a network that would follow its batch.

    Raises:
        UsageError: It is in training mode.
    """
    if module.training and not isinstance(module, fx.GraphModule):
        raise UsageError(
            f"{label} is in training mode, where a BatchNorm follows its batch", "Call model.eval() first."
        )
