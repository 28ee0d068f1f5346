"""Branch merges in a module whose forward stays as it is: one branch computes all of them, the others give 0.

    forward:  a(x) + b(x) + c(x)        a: Conv2d with the merged kernel        b, c: Zero, and Identity behind it

So a branch can go only if it is made by modules of its own: a plain `x` in the sum stays an operand. What `forward`
does with a branch besides calling modules must leave a single 0 as it is (a multiplication), and what it adds in place
must be added to something that has its full shape. All calls of a module must agree on what it becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import fx, nn

from bnfold.branches.search import Merge, MergedSum
from bnfold.branches.taps import Branch
from bnfold.frontends.aten.editor import value_of
from bnfold.frontends.aten.functional import wrote
from bnfold.frontends.aten.merge import Merger, merges_of, nodes_by_label
from bnfold.frontends.aten.nodes import fake, module_stack, opname
from bnfold.frontends.aten.program import Reading
from bnfold.frontends.modules.layers import Zero, computing
from bnfold.frontends.modules.regions import Rest, calls_of_modules, rest_of, turn_into
from bnfold.units.graph import Add, Affine, Linear, Op, Reshape, Value

NOTHING_DONE = ("alias", "clone", "contiguous", "detach", "dropout", "feature_dropout")
GONE, SILENT = "identity", "zero"  # what modules become, besides the one that computes


@dataclass(frozen=True)
class Roles:
    """What the modules of one merge become.

    Attributes:
        keeper: The operator whose module computes the sum.
        others: For each of the other operators that a module makes: `GONE` or `SILENT`.
    """

    keeper: str
    others: Mapping[str, str]


@dataclass
class Carried:
    """The merges that a module can carry out.

    Attributes:
        sums: What is merged.
        places: For the operators of a merge, the one whose module computes the sum.
        becomes: What each module becomes: `GONE`, `SILENT`, or the merge that it computes.
        likes: For each of these modules, a tensor without numbers of the type and device of what it made.
    """

    sums: tuple[MergedSum, ...] = ()
    places: dict[tuple[str, ...], str] = field(default_factory=dict)
    becomes: dict[str, str | Merge] = field(default_factory=dict)
    likes: dict[str, torch.Tensor] = field(default_factory=dict)


class Carrier:
    """Finds which branch merges of a program the modules it was exported from can carry out."""

    def __init__(self, module: nn.Module, reading: Reading) -> None:
        self.reading, self.context = reading, reading.context
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.ops: dict[str, Op] = {op.name: op for op in reading.graph.ops}
        self.makers: dict[Value, Op] = {op.y: op for op in reading.graph.ops if hasattr(op, "y")}
        self.nodes = nodes_by_label(reading.context)
        self.calls = calls_of_modules(reading.context.graph.nodes)
        self._able: set[str] = set()

    def find(self) -> Carried:
        """All merges that can be carried out together."""
        wished = merges_of(self.reading)
        if not wished:
            return Carried()
        gone = frozenset(self.nodes[name] for s in wished for merge in s.merges for name in merge.names)
        paths = {stack[-1] for node in gone if (stack := module_stack(node))} & self._private_paths()
        self._able = {path for path in paths if self._is_leaf(path) and self._is_all_gone(path, gone)}
        sums = list(merges_of(self.reading, self._may_go))
        while True:
            roles: dict[tuple[str, ...], Roles] = {}
            refused = {s.result for s in sums if not self._distribute(s, roles)}
            found = Carried(tuple(sums), {names: each.keeper for names, each in roles.items()})
            if not refused:
                refused = self._conflicts(found, roles)
            if not refused:
                return found
            sums = [s for s in sums if s.result not in refused]

    def _may_go(self, source: Value, value: Value, branches: Sequence[Branch]) -> bool:
        """Whether an operand of a sum can be made 0, or compute the sum."""
        return self._silenced(source, value) is not None

    def _path(self, name: str) -> str | None:
        """The module that an operator is made by, if it is one that may become something else."""
        stack = module_stack(self.nodes[name])
        path = stack[-1] if stack else ""
        return path if path in self._able else None

    def _private_paths(self) -> set[str]:
        """Modules whose parameters are read in their own calls only."""
        paths = set(self.modules)
        for placeholder, target in self.reading.editor.targets().items():
            path = target.rpartition(".")[0]
            if any(path not in module_stack(user) for user in placeholder.users):
                paths.discard(path)
        return paths

    def _distribute(self, merged: MergedSum, roles: dict[tuple[str, ...], Roles]) -> bool:
        """Choose, for each merge of a sum, what its modules become; whether there is one."""
        solid = {value for value, _ in merged.rest}
        chosen: dict[tuple[str, ...], Roles] = {}
        for merge in merged.merges:
            best = self._roles(merge, lambda value: self._stays_solid(merged, solid | {value}))
            if best is None:
                return False
            chosen[merge.names], keeper_value = best
            solid.add(keeper_value)
        roles.update(chosen)
        return True

    def _roles(self, merge: Merge, fits: Callable[[Value], bool]) -> tuple[Roles, Value] | None:
        """The operand that computes a merge, that of its main operator first, and what becomes of the others."""
        options = []
        for value, factor in merge.operands:
            keeper = self._keeper(merge, value) if factor == 1 and fits(value) else None
            if keeper is not None:
                options.append((merge.box.main.name not in self._way(merge.source, value), value, keeper))
        if not options:
            return None
        _, chosen, keeper = min(options, key=lambda option: option[0])
        others: dict[str, str] = dict.fromkeys(self._way(merge.source, chosen), GONE)
        others.pop(keeper)
        for value, _ in merge.operands:
            if value is not chosen:
                silenced = self._silenced(merge.source, value)
                assert silenced is not None
                others |= silenced
        return Roles(keeper, {name: role for name, role in others.items() if self._path(name)}), chosen

    def _stays_solid(self, merged: MergedSum, solid: set[Value]) -> bool:
        """Whether what is added in place is always added to something that is not just a 0."""
        operators = {op.y: op for name in merged.adds if isinstance(op := self.ops[name], Add)}

        def is_solid(value: Value) -> bool:
            op = operators.get(value)
            return value in solid if op is None else is_solid(op.a) or is_solid(op.b)

        return all(is_solid(op.a) for op in operators.values() if wrote(self.nodes[op.name]))

    def _way(self, source: Value, value: Value) -> tuple[str, ...]:
        """The operators from a tensor to an operand, first to last, where there is one way."""
        names: list[str] = []
        while value != source:
            op = self.makers[value]
            if isinstance(op, Add):
                return ()
            names.insert(0, op.name)
            value = op.x  # type: ignore[attr-defined]
        return tuple(names)

    def _keeper(self, merge: Merge, value: Value) -> str | None:
        """The operator of an operand whose module can compute the whole merge."""
        way, window, main = self._way(merge.source, value), merge.box.window, merge.box.main
        owned = [name for name in way if self._path(name)]
        if not owned or not all(name in owned or self._does_nothing(name) for name in way):
            return None
        last = len(self.reading.graph.shapes[merge.source]) - 1
        if main.x_axis != last if window is None else window.pads_begin != window.pads_end:
            return None
        linears = [name for name in owned if isinstance(self.ops[name], Linear)]
        return main.name if main.name in owned else [*owned, *linears][-1]

    def _does_nothing(self, name: str) -> bool:
        """Whether an operator that forward calls itself passes on what it is given, of any shape."""
        op = self.ops[name]
        if isinstance(op, Affine):
            return bool(np.all(op.scale == 1) and np.all(op.shift == 0))
        return isinstance(op, Reshape) and opname(self.nodes[name]) in NOTHING_DONE

    def _silenced(self, source: Value, value: Value) -> dict[str, str] | None:
        """What the modules of an operand become so that it is a 0; None where it would not be."""
        roles: dict[str, str] = {}

        def is_zero(value: Value) -> bool:
            if value == source:
                return False
            op = self.makers[value]
            if isinstance(op, Add):
                first, second = is_zero(op.a), is_zero(op.b)
                return first and second
            before = is_zero(op.x)  # type: ignore[attr-defined]
            if self._path(op.name):
                roles[op.name] = GONE if before else SILENT
                return True
            scales = isinstance(op, Affine) and not np.any(op.shift)
            return before and (scales or self._does_nothing(op.name))

        return roles if is_zero(value) else None

    def _conflicts(self, found: Carried, roles: Mapping[tuple[str, ...], Roles]) -> set[Value]:
        """Sums that cannot be merged, because a module would have to become two things, or does more than it should."""
        refused = set()
        merges = {merge.names: (merge, s.result) for s in found.sums for merge in s.merges}
        gone = frozenset(self.nodes[name] for names in merges for name in names)
        for names, each in roles.items():
            merge, result = merges[names]
            wanted: dict[str, str | Merge] = {each.keeper: merge, **each.others}
            for name, role in wanted.items():
                path = self._path(name)
                assert path is not None
                known = found.becomes.setdefault(path, role)
                found.likes[path] = fake(value_of(self.nodes[name]))  # type: ignore[assignment]
                if not _same_role(known, role) or not self._is_all_gone(path, gone):
                    refused.add(result)
        return refused

    def _is_leaf(self, path: str) -> bool:
        """Whether a module makes all of its operators itself."""
        return bool(path) and all(module_stack(node)[-1:] == (path,) for call in self.calls[path] for node in call)

    def _is_all_gone(self, path: str, gone: frozenset[fx.Node]) -> bool:
        rest = rest_of(path, self.modules[path], self.calls[path], gone, self.context)
        return isinstance(rest, Rest) and not rest.children and not rest.activations


def _same_role(a: str | Merge, b: str | Merge) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a is b
    return a is b or (np.array_equal(a.weight, b.weight) and np.array_equal(a.bias, b.bias))


def carry_out(module: nn.Module, reading: Reading, carried: Carried) -> None:
    """Merge branches in a program and in the module it was exported from.

    Args:
        module: The module; changed.
        reading: The program; changed.
        carried: What to merge.
    """
    editor = reading.editor
    Merger(editor, reading, carried.places).run(carried.sums)
    for path, role in carried.becomes.items():
        layer, like = module.get_submodule(path), carried.likes[path]
        if isinstance(role, Merge):
            turn_into(layer, computing(layer, role, editor.state[f"{path}.weight"], editor.state.get(f"{path}.bias")))
        else:
            turn_into(layer, nn.Identity() if role == GONE else Zero(like.dtype, like.device))
