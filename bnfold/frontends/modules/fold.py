"""A network in, the same network without its BatchNorms out: a new object of the same class.

    module ──deepcopy──> copy ──torch.export──> program ──plan──> edits ──> changes of the copy's modules

The copy is what is exported, so whatever the program reads is the copy's own. Where `forward` itself does what would
have to change, and the BatchNorms could not go without it, the result is the program as a module
(`torch.export.unflatten`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import UnsupportedError, UsageError
from bnfold.frontends.aten.program import Planned, plan_program, read_program
from bnfold.frontends.aten.rewrite import rewrite_program
from bnfold.frontends.modules.graphs import unflattened
from bnfold.frontends.modules.map import Changes, map_changes, store
from bnfold.frontends.modules.prepare import bake, copied, observed, refuse, unwrapped
from bnfold.frontends.modules.regions import become
from bnfold.plan import Plan
from bnfold.wording import printable

AGREE = 1e-2  # of the output's size: what a trial must reach to show that forward did not look at a BatchNorm
AGREE_ROUGHLY = 0.25  # the same for two-byte floats


@dataclass(frozen=True)
class Call:
    """How a network is called.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        dynamic_shapes: As `torch.export.export` takes them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None


def fold_module(
    module: nn.Module, example_inputs: Any, dynamic_shapes: Any = None, prefer: str = "module"
) -> tuple[nn.Module, Plan]:
    """Remove every BatchNorm of a network that a change of units can remove.

    Args:
        module: The network, in evaluation mode; not changed.
        example_inputs: A tensor, a tuple of positional or a mapping of keyword arguments.
        dynamic_shapes: Sizes that may vary, as `torch.export.export` takes them.
        prefer: `"module"`: the same class where that removes as many BatchNorms; `"graph"`: always the program.

    Returns:
        A new network, and the plan that was carried out; its notes say what is not as one might expect.

    Raises:
        UsageError: The network is in training mode, or the arguments do not fit.
        UnsupportedError: torch cannot export the network, or its weights cannot be read.
    """
    if prefer not in ("module", "graph"):
        raise UsageError(f"prefer is {prefer!r}", "Pass 'module' or 'graph'.")
    module, notes = unwrapped(module)
    refuse(module)
    call = _call(example_inputs, dynamic_shapes)
    try:
        copy_of = copied(module)
    except Exception as error:
        copy_of, prefer = module, "graph"
        notes += (f"the network cannot be copied ({_first_line(error)}), so the result is a graph",)
    if prefer == "module":
        made, plan, words = _as_module(module, copy_of, call)
    else:
        planned, _ = _planned(copy_of, call)
        made, plan, words = _as_graph(planned), planned.plan, ("the result is a graph, not the class that came in",)
    return made, replace(plan, notes=(*notes, *words))


def _as_module(module: nn.Module, ours: nn.Module, call: Call) -> tuple[nn.Module, Plan, tuple[str, ...]]:
    """The plan carried out in the modules of a copy; as a graph where that is not possible without keeping more."""
    planned, exported = _planned(ours, call)
    notes: tuple[str, ...] = ()
    changes = map_changes(ours, exported, planned)
    if changes.problems and changes.baked and bake(ours, changes.baked):
        notes = (f"the parametrization of {', '.join(sorted(changes.baked))} became a plain weight",)
        planned, exported = _planned(ours, call)
        changes = map_changes(ours, exported, planned)
    free = planned
    held: frozenset[str] = frozenset()
    while changes.problems and not {node.name for node in changes.problems} <= held:
        held |= {node.name for node in changes.problems}
        words = "; ".join(dict.fromkeys(changes.problems.values()))
        planned = plan_program(read_program(exported, held, observed(ours), own=True))
        if planned.plan.kept > free.plan.kept:
            return _as_graph(free), free.plan, (*notes, f"the result is a graph, because {words}")
        changes = map_changes(ours, exported, planned)
    if changes.problems:
        words = "; ".join(dict.fromkeys(changes.problems.values()))
        return _as_graph(free), free.plan, (*notes, f"the result is a graph, because {words}")
    changing = bool(planned.reading.program.graph_signature.buffers_to_mutate)
    if not _carried_out(module, ours, changes, None if changing else call):
        fresh, _ = _planned(copied(module), call)
        return _as_graph(fresh), fresh.plan, ("the result is a graph, because forward looks at its BatchNorms",)
    return ours, planned.plan, notes


def _carried_out(module: nn.Module, ours: nn.Module, changes: Changes, call: Call | None) -> bool:
    """Change the copy, and call it once: a forward that looks at a BatchNorm that is gone would fail, or go elsewhere.

    A network that changes with each call is not called.
    """
    store(ours, changes)
    for path, rest in changes.becomes.items():
        become(ours.get_submodule(path), rest)
    if not changes.becomes or call is None or any(m.training for m in module.modules()):
        return True
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = _tensors(module(*copy.deepcopy(call.args), **copy.deepcopy(call.kwargs)))
        torch.manual_seed(0)
        try:
            after = _tensors(ours(*copy.deepcopy(call.args), **copy.deepcopy(call.kwargs)))
        except Exception:
            return False
    return len(before) == len(after) and all(_alike(a, b) for a, b in zip(before, after, strict=True))


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point() or not a.numel():
        return True
    agree = AGREE if a.dtype.itemsize > 2 else AGREE_ROUGHLY
    a, b = torch.nan_to_num(a.double()), torch.nan_to_num(b.double())
    return bool((a - b).abs().max() <= agree * a.abs().max().clamp(min=1e-30))


def _tensors(value: Any) -> list[torch.Tensor]:
    return [v for v in torch.utils._pytree.tree_leaves(value) if isinstance(v, torch.Tensor)]


def _planned(module: nn.Module, call: Call) -> tuple[Planned, ExportedProgram]:
    exported = _exported(module, call)
    return plan_program(read_program(exported, observed=observed(module), own=True)), exported


def _exported(module: nn.Module, call: Call) -> ExportedProgram:
    with torch.no_grad():
        try:
            return torch.export.export(module, call.args, call.kwargs or None, dynamic_shapes=call.dynamic_shapes)
        except Exception as error:
            raise UnsupportedError(
                f"torch.export cannot capture {type(module).__name__}: {_first_line(error)}",
                "Call torch.export.export(model, args) on its own; its full report names the line of forward.",
            ) from error


def _as_graph(planned: Planned) -> nn.Module:
    """The folded program as a module with the names of the one it was exported from."""
    reading = planned.reading
    return unflattened(rewrite_program(reading.program, planned.edits, reading.context))


def _call(example_inputs: Any, dynamic_shapes: Any) -> Call:
    if example_inputs is None:
        raise UsageError(
            "bnfold.fold needs example inputs to follow an nn.Module",
            "Pass bnfold.fold(model, (torch.randn(1, 3, 224, 224),)), with inputs of the right shape.",
        )
    if isinstance(example_inputs, Mapping):
        return Call((), dict(example_inputs), dynamic_shapes)
    if isinstance(example_inputs, Sequence):
        return Call(tuple(example_inputs), {}, dynamic_shapes)
    return Call((example_inputs,), {}, dynamic_shapes)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return printable(lines[0], 200)
