"""A network in, the same network without its BatchNorms out: a new object of the same class.

    module ──deepcopy──> copy ──torch.export──> program ──(merge)*──plan──> edits ──> changes of the copy's modules

The copy is what is exported, so whatever the program reads is the copy's own. Branches are merged in the program and in
the copy alike, as far as forward allows (`merge`). Where `forward` itself does what would
have to change, and the BatchNorms could not go without it, the result is the program as a module
(`torch.export.unflatten`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.modules.batchnorm import _BatchNorm

from bnfold.errors import UnsupportedError, UsageError
from bnfold.frontends.aten.editor import Editor
from bnfold.frontends.aten.fold import Rounds
from bnfold.frontends.aten.functional import functional
from bnfold.frontends.aten.merge import merges_of
from bnfold.frontends.aten.planned import plan_program
from bnfold.frontends.aten.program import Reading, View
from bnfold.frontends.modules.example import call_of, refuse_what_it_does_not_take
from bnfold.frontends.modules.graphs import unflattened
from bnfold.frontends.modules.map import Changes, map_changes, store
from bnfold.frontends.modules.merge import Carrier, carry_out
from bnfold.frontends.modules.prepare import bake, copied, observed, part, refuse, shared_with, unwrapped
from bnfold.frontends.modules.regions import become, calls_of_modules
from bnfold.frontends.modules.trial import Call, do_the_same, do_the_same_unwritten
from bnfold.heap import give_back
from bnfold.planning.choices import AS_USUAL, Choices
from bnfold.planning.plan import Plan
from bnfold.reasons import Reason
from bnfold.wording import listed, printable

Folded = tuple[nn.Module, Plan, tuple[str, ...]]


def fold_module(
    module: nn.Module,
    example_inputs: Any,
    dynamic_shapes: Any = None,
    prefer: str = "module",
    choices: Choices = AS_USUAL,
) -> tuple[nn.Module, Plan]:
    """Remove every BatchNorm of a network that a change of units can remove.

    Args:
        module: The network, in evaluation mode; not changed.
        example_inputs: A tensor, a tuple of positional or a mapping of keyword arguments.
        dynamic_shapes: Sizes that may vary, as `torch.export.export` takes them.
        prefer: `"module"`: the same class where that removes as many BatchNorms; `"graph"`: always the program.
        choices: How to fold it.

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
    call = call_of(example_inputs, dynamic_shapes)
    try:
        ours = copied(module, sharing=prefer == "module")
    except Exception as error:
        ours, prefer = module, "graph"
        notes += (f"the network cannot be copied ({_first_line(error)}), so the result is a graph",)
    if prefer == "module":
        made, plan, words = _Attempt(module, ours, call, choices).carried_out()
    else:
        made, plan = _as_graph(_opened(ours, call, choices)[0])
        words = ("the result is a graph, not the class that came in",)
    return made, replace(plan, notes=(*notes, *words, *_in_training(module, plan)))


def _in_training(module: nn.Module, plan: Plan) -> tuple[str, ...]:
    """What to say of BatchNorms that were left in training mode inside a network in evaluation mode."""
    names = [path for path, layer in module.named_modules() if isinstance(layer, _BatchNorm) and layer.training]
    if not names or not any(site.reason is Reason.TRAINING for site in plan.sites):
        return ()
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{listed(names)} {verb} in training mode, though the network is not: the statistics are those of the "
        "batch; where that is not meant, call model.eval() and fold again",
    )


class _Attempt:
    """One attempt to fold a network by changing the modules of a copy.

    Args:
        module: The network.
        ours: The copy.
        call: How it is called.
        choices: How to fold it.
        baked: Paths of modules whose computed weights become plain ones first.
        merging: Whether branches may be merged.
    """

    def __init__(
        self,
        module: nn.Module,
        ours: nn.Module,
        call: Call,
        choices: Choices,
        baked: frozenset[str] = frozenset(),
        *,
        merging: bool = True,
    ) -> None:
        self.module, self.ours, self.call, self.choices = module, ours, call, choices
        self.baked = baked if baked and bake(ours, set(baked)) else frozenset()
        self.rounds, self.exported = _opened(ours, call, choices)
        in_training = any(layer.training for layer in module.modules())
        self.can_be_tried = not self.rounds.editor.changes_with_each_call and not in_training
        self.merging, self.merged = merging and self.can_be_tried, False
        self.notes: tuple[str, ...] = ()
        if self.baked:
            self.notes = (f"the parametrization of {', '.join(sorted(self.baked))} became a plain weight",)

    def carried_out(self) -> Folded:
        """The copy, changed; a graph where that is not possible without keeping more BatchNorms."""
        reading = self._merged()
        free = planned = plan_program(reading, self.choices, self.rounds.allowance(reading))
        if free.folding.plan.kept and self.choices.leftover != "keep":
            return self._graph("the result is a graph, because what BatchNorms that stay are to be has no module")
        changes = map_changes(self.ours, self.exported, planned)
        if changes.problems and changes.baked - self.baked:
            return self._again(frozenset(changes.baked), merging=self.merging)
        held: frozenset[str] = frozenset()
        while changes.problems:
            words = "; ".join(dict.fromkeys(changes.problems.values()))
            names = {node.name for node in changes.problems}
            reading = self.rounds.read(replace(self.rounds.view, held=held | names))
            planned = plan_program(reading, self.choices, self.rounds.allowance(reading))
            if names <= held or planned.folding.plan.kept > free.folding.plan.kept:
                return self._graph(f"the result is a graph, because {words}")
            held |= names
            changes = map_changes(self.ours, self.exported, planned)
        kept, unmerged = planned.folding.plan.kept, len(merges_of(free.reading))
        if kept and unmerged:
            better = self._graph("the result is a graph, because merging branches removes more BatchNorms")
            if better[1].kept < kept:
                return better
        assert self.rounds.ledger is not None
        self.rounds.ledger.folded(planned.folding.plan)
        plan = self.rounds.plan()
        counts = self._change(changes)
        del reading, free, planned, changes  # not wanted beside two networks
        self._let_go()
        if not self._is_the_same(counts):
            if self.merged:
                return self._again(self.baked, merging=False)
            return self._graph("the result is a graph, because forward looks at its BatchNorms")
        if unmerged:
            stay = "1 sum of branches stays" if unmerged == 1 else f"{unmerged} sums of branches stay"
            self.notes += (f"{stay} as forward writes it; prefer='graph' merges them",)
        return self.ours, plan, self.notes

    def _again(self, baked: frozenset[str], *, merging: bool) -> Folded:
        """Another attempt, with a copy of its own."""
        fresh = copied(self.module, sharing=True)
        return _Attempt(self.module, fresh, self.call, self.choices, baked, merging=merging).carried_out()

    def _merged(self) -> Reading:
        """The program, once branches are merged as far as forward allows, in the copy alike."""
        reading = self.rounds.read()
        while self.merging and (carried := Carrier(self.ours, reading).find()).sums:
            assert self.rounds.ledger is not None
            self.rounds.ledger.merged(carried.sums, reading.graph, carried.places)
            carry_out(self.ours, reading, carried)
            self.merged = True
            reading = self.rounds.read()
        return reading

    def _graph(self, why: str) -> Folded:
        """The folded program, from a copy that is as it was."""
        rounds, _ = _opened(copied(self.module), self.call, self.choices)
        return *_as_graph(rounds), (why,)

    def _change(self, changes: Changes) -> dict[str, int]:
        """Change the copy; how often the program calls each module that became another one."""
        store(self.ours, changes)
        for path, rest in changes.becomes.items():
            become(self.ours.get_submodule(path), rest)
        calls = calls_of_modules(self.rounds.editor.graph.nodes)
        return {path: len(calls[path]) for path in changes.becomes}

    def _let_go(self) -> None:
        """Free what the program's nodes hold now: they know each other, so that only the garbage collector would."""
        for graph in (self.exported.graph, self.rounds.editor.graph):
            for node in graph.nodes:
                node.meta.clear()
        del self.exported, self.rounds

    def _is_the_same(self, counts: Mapping[str, int]) -> bool:
        """Call the copy, changed; a network that changes with each call is not called.

        What the copy shares with the original is cloned last, when all else that was needed is free again.

        Args:
            counts: How often the program calls each module that became another one.
        """
        part(shared_with(self.ours.buffers(), self.module))
        shared = shared_with(self.ours.parameters(), self.module)
        tried = self.can_be_tried and bool(counts or self.merged)
        same = tried and bool(shared) and do_the_same_unwritten(self.module, self.ours, self.call, counts, shared)
        give_back()
        part(shared)
        return same or not tried or do_the_same(self.module, self.ours, self.call, counts)


def _opened(module: nn.Module, call: Call, choices: Choices) -> tuple[Rounds, ExportedProgram]:
    """A network as a program that can be folded, and as it was exported."""
    exported = _exported(module, call)
    view = View(observed=observed(module), any_size=True)
    return Rounds(Editor(functional(exported, own=True)), choices, view), exported


def _exported(module: nn.Module, call: Call) -> ExportedProgram:
    with torch.no_grad():
        try:
            return torch.export.export(module, call.args, call.kwargs or None, dynamic_shapes=call.dynamic_shapes)
        except Exception as error:
            refuse_what_it_does_not_take(module, call)
            raise UnsupportedError(
                f"torch.export cannot capture {type(module).__name__}: {_first_line(error)}",
                "Call torch.export.export(model, args) on its own; its full report names the line of forward.",
            ) from error


def _as_graph(rounds: Rounds) -> tuple[nn.Module, Plan]:
    """The folded program as a module with the names of the one it was exported from."""
    rounds.run()
    return unflattened(rounds.editor.finished()), rounds.plan()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return printable(lines[0], 200)
