"""A folded program as a module that lives as other modules do: it is copied and pickled.

What `torch.export.unflatten` returns holds nodes and operators of a graph, which do not pickle. The program it was made
of can be written and read by torch.export; so the module keeps the program, without weights, and pickles as that.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram, UnflattenedModule

from bnfold.quiet import quiet

PROGRAM = "_bnfold_program"  # the attribute that holds it


class FoldedGraph(UnflattenedModule):
    """A folded program with the names of the network it was exported from."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FoldedGraph:
        program = vars(self)[PROGRAM]
        memo[id(program)] = program  # nothing changes it
        made = FoldedGraph.__new__(FoldedGraph)
        memo[id(self)] = made
        with quiet():
            made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _read, (written(vars(self)[PROGRAM], self), self.training, _frozen(self))


def unflattened(program: ExportedProgram) -> nn.Module:
    """A program as a module; one that torch cannot take apart is a graph without submodules, which does not pickle.

    Args:
        program: The program; the module has tensors of its own.
    """
    try:
        made = torch.export.unflatten(program)
    except Exception:  # what it does not know how to take apart differs from release to release
        module: nn.Module = program.module()
    else:
        made.__class__ = FoldedGraph
        made.__dict__[PROGRAM] = _with_state(
            program, {name: _hollow(value) for name, value in program.state_dict.items()}
        )
        module = made
    for part in module.modules():
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            node.meta.pop("val", None)  # tensors without numbers, which cannot be copied
    module.training = False
    return module


def written(program: ExportedProgram, module: nn.Module) -> bytes:
    """A program with the numbers that a module has now, as torch.export writes it."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(_with_state(program, module.state_dict(keep_vars=True)), buffer)
    return buffer.getvalue()


def _with_state(program: ExportedProgram, state: dict[str, Any]) -> ExportedProgram:
    return program._update(
        program.graph_module, program.graph_signature, state_dict=state, constants=dict(program.constants)
    )


def _hollow(value: Any) -> Any:
    """A parameter or buffer of the same kind without numbers."""
    if not isinstance(value, torch.Tensor):
        return value
    empty = value.detach().to("meta")
    return nn.Parameter(empty, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else empty


def _frozen(module: nn.Module) -> frozenset[str]:
    return frozenset(name for name, parameter in module.named_parameters() if not parameter.requires_grad)


def _read(data: bytes, training: bool, frozen: frozenset[str]) -> nn.Module:
    """What pickle calls to make the module anew."""
    with quiet():
        module = unflattened(torch.export.load(io.BytesIO(data)))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)
    module.training = training
    return module
