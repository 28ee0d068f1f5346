"""From edits to the nodes of a program to changes of the modules it was made from.

A parameter keeps its name and gets new numbers; a bias that was absent becomes a parameter of the module that makes the
operator; a module whose operators vanish becomes what is left of it (`regions`). What cannot be said of a module
(an operator that `forward` calls itself, a number in its source, a weight that is computed) is a problem, by node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.export import ExportedProgram

from bnfold.frontends.aten.edits import nearly_equal, renewable
from bnfold.frontends.aten.functional import may_alias, wrote
from bnfold.frontends.aten.nodes import (
    Place,
    argument,
    argument_name,
    arguments,
    fake,
    module_stack,
    opname,
    places_of,
    results,
    to_tensor,
)
from bnfold.frontends.aten.planned import Planned
from bnfold.frontends.modules.probes import adds_bias
from bnfold.frontends.modules.regions import Rest, calls_of_modules, rest_of


@dataclass
class Changes:
    """What to change in a module.

    Attributes:
        values: New numbers for parameters and buffers, by path.
        added: Parameters that were absent, by path of the module and name.
        copied: Parameters that a module shares with others and gets for itself, by path of the module and name.
        becomes: What modules become, by path.
        out_of_place: Paths of activations that must not write into their input any more.
        problems: Nodes whose change a module cannot hold, and why in words.
        baked: Paths of modules whose weight is computed from parameters of its own.
    """

    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    added: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)
    copied: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)
    becomes: dict[str, Rest] = field(default_factory=dict)
    out_of_place: set[str] = field(default_factory=set)
    problems: dict[fx.Node, str] = field(default_factory=dict)
    baked: set[str] = field(default_factory=set)


def map_changes(module: nn.Module, exported: ExportedProgram, planned: Planned) -> Changes:
    """What a plan means for the modules of a network; nothing is changed yet.

    Args:
        module: The network.
        exported: The program as it was exported, before it was made functional.
        planned: The plan for it.
    """
    return _Mapper(module, exported, planned).run()


class _Mapper:
    def __init__(self, module: nn.Module, exported: ExportedProgram, planned: Planned) -> None:
        self.module, self.exported = module, exported
        self.edits, self.context = planned.edits, planned.reading.context
        self.targets = planned.reading.editor.targets()
        self.stored = dict(module.named_parameters(remove_duplicate=False)) | dict(
            module.named_buffers(remove_duplicate=False)
        )
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.changes = Changes()

    def run(self) -> Changes:
        for (node, place), array in self.edits.operands.items():
            self._operand(node, place, array)
        for node in (*self.edits.replaced, *self.edits.added, *self.edits.depthwise):
            self._problem(node, "there is nowhere to keep a constant")
        self._absent_everywhere()
        self._vanished()
        self._in_place()
        return self.changes

    def _problem(self, node: fx.Node, why: str) -> None:
        self.changes.problems.setdefault(node, why)

    def _operand(self, node: fx.Node, place: Place, array: NDArray[Any]) -> None:
        """New numbers for a constant argument."""
        old = argument(node, place)
        if old is None:
            self._absent(node, argument_name(node, place) or "", array)
        elif not isinstance(old, fx.Node):
            self._problem(node, "a number in the source would have to change")
        elif old not in self.targets:
            self._computed(node, old)
        else:
            agreed, target = renewable(self.edits, self.context, old), self.targets[old]
            if agreed is None and not self._own_copy(node, old, array):
                self._problem(node, f"{target} is read in other places as well")
            elif agreed is None:
                pass
            elif target not in self.stored:
                self._problem(node, f"{target} is no parameter or buffer of the module")
            else:
                self.changes.values[target] = agreed

    def _own_copy(self, node: fx.Node, old: fx.Node, array: NDArray[Any]) -> bool:
        """Give the module that makes an operator a parameter of its own, where it shares one with other modules."""
        path = self._owner(node)
        layer = self.modules.get(path) if path else None
        names = self._holds(path, old)
        if layer is None or len(names) != 1:
            return False
        for alias in self.context.aliases(old):
            for reader in alias.users:
                if path not in module_stack(reader):
                    if not self._holds(self._owner(reader), old):
                        return False  # forward may read it as this module's
                    continue
                wanted = [self.edits.operands.get((reader, place)) for place in places_of(reader, alias)]
                dtype = self.context.tensors[old].dtype
                if any(other is None or not nearly_equal(other, array, dtype) for other in wanted):
                    return False
        self.changes.copied[path, names[0]] = array
        return True

    def _holds(self, path: str, placeholder: fx.Node) -> list[str]:
        """What a module itself calls the tensor behind a placeholder."""
        layer, known = self.modules.get(path), self.context.tensors[placeholder]
        held = {} if layer is None else layer._parameters
        return [
            n for n, t in held.items() if t is not None and (t.data_ptr(), t.shape) == (known.data_ptr(), known.shape)
        ]

    def _computed(self, node: fx.Node, old: fx.Node) -> None:
        """A weight that is computed from others can be changed once it is a parameter itself."""
        sources, queue = set(), [old]
        while queue:
            at = queue.pop()
            queue += at.all_input_nodes
            sources |= {self.targets[at]} if at in self.targets else set()
        owners = {name.split(".parametrizations.")[0] for name in sources if ".parametrizations." in name}
        owners |= {name.rpartition(".")[0] for name in sources if name.endswith((".weight_g", ".weight_orig"))}
        self.changes.baked |= owners
        self._problem(node, "a weight is computed from other parameters")

    def _absent(self, node: fx.Node, name: str, array: NDArray[Any]) -> None:
        """An argument that was None becomes a parameter of the module that makes the operator."""
        path = self._owner(node)
        layer = self.modules.get(path) if path else None
        if layer is None or layer._parameters.get(name, self) is not None:
            self._problem(node, f"forward of {path or 'the model'} calls the operator itself, without a {name}")
        elif not adds_bias(layer, node):
            self._problem(node, f"forward of {path} does not pass {name} on")
        elif not self._agrees(path, name, array, node):
            self._problem(node, f"{path} is called several times, and would need several {name}es")
        else:
            self.changes.added[path, name] = array

    def _agrees(self, path: str, name: str, array: NDArray[Any], node: fx.Node) -> bool:
        """Whether other calls of a module want the same parameter."""
        value, known = fake(results(node)[0]), self.changes.added.get((path, name), array)
        return known is array or (value is not None and nearly_equal(known, array, value.dtype))

    def _absent_everywhere(self) -> None:
        """A parameter that is added is there in every call of its module, so every call must want it."""
        made: dict[str, list[fx.Node]] = {}
        for node in self.context.graph.nodes:
            made.setdefault(self._owner(node), []).append(node)
        given = {(node, argument_name(node, place)) for node, place in self.edits.operands}
        for path, name in self.changes.added:
            for node in made[path]:
                if _takes(node, name) and (node, name) not in given:
                    self._problem(node, f"{path} is called several times, and not all calls want a {name}")

    def _owner(self, node: fx.Node) -> str:
        stack = module_stack(node)
        return stack[-1] if stack else ""

    def _vanished(self) -> None:
        """Modules whose operators vanish become what is left of them; an operator on its own may be made neutral."""
        gone, calls = frozenset(self.edits.gone), calls_of_modules(self.context.graph.nodes)
        paths: dict[str, list[fx.Node]] = {}
        for node in self.edits.gone:
            paths.setdefault(self._owner(node), []).append(node)
        for path, nodes in paths.items():
            layer = self.modules.get(path)
            if not path or layer is None:
                why: Rest | str = "forward of the model calls the operator itself"
            elif not self._keeps_to_itself(path):
                why = f"something else reads the parameters of {path}"
            else:
                why = rest_of(path, layer, calls[path], gone, self.context)
            if isinstance(why, Rest) and (not why.children or self._owns_statistics(path, nodes)):
                self.changes.becomes[path] = why
                continue
            for node in nodes:
                if not self._does_nothing(node) and not self._neutral(node):
                    self._problem(node, why if isinstance(why, str) else f"{path} is more than a normalisation")

    def _owns_statistics(self, path: str, nodes: Sequence[fx.Node]) -> bool:
        """Whether a module holds the statistics of a BatchNorm that it makes."""
        stored = [n for node in nodes for n in node.all_input_nodes if n in self.targets]
        return bool(stored) and all(self.targets[n].rpartition(".")[0] == path for n in stored)

    def _keeps_to_itself(self, path: str) -> bool:
        """Whether what a module holds is read in its own calls only."""
        for placeholder, target in self.targets.items():
            if target.rpartition(".")[0] != path:
                continue
            for user in placeholder.users:
                if path not in module_stack(user):
                    return False
        return True

    def _does_nothing(self, node: fx.Node) -> bool:
        """Whether a node that vanishes may as well stay: `0 + x`, `1·x`."""
        if opname(node) not in ("add", "div", "mul", "sub"):
            return False
        named = arguments(node)
        held = next((v for v in (named["other"], named["self"]) if not self.context.feature(v)), None)
        if held is named["self"] and opname(node) in ("div", "sub"):
            return False
        array = self.context.const(held) if isinstance(held, fx.Node) else held
        return array is not None and bool(np.all(np.asarray(array) == (0 if opname(node) in ("add", "sub") else 1)))

    def _neutral(self, node: fx.Node) -> bool:
        """A multiplication by a parameter that vanishes may stay, by 1; an addition, of 0."""
        if opname(node) not in ("add", "mul", "sub"):
            return False
        named = arguments(node)
        held = next((v for v in (named["self"], named["other"]) if self.context.is_const(v)), None)
        if not isinstance(held, fx.Node) or held not in self.targets:
            return False
        if self.targets[held] not in self.stored or len(self.context.readers(held)) != 1:
            return False
        if opname(node) == "sub" and held is named["self"]:
            return False
        tensor = self.context.tensors[held]
        self.changes.values[self.targets[held]] = np.full(tuple(tensor.shape), 1.0 if opname(node) == "mul" else 0.0)
        return True

    def _in_place(self) -> None:
        """What writes in place behind a module that vanishes would write into that module's input."""
        for node in self.exported.graph.nodes:
            if node.op != "call_function" or not wrote(node) or self._owner(node) in self.changes.becomes:
                continue
            for value in (v for v in node.args if isinstance(v, fx.Node)):
                crossed, shared = self._source(value)
                layer = self.modules.get(self._owner(node))
                if crossed and isinstance(getattr(layer, "inplace", None), bool):
                    self.changes.out_of_place.add(self._owner(node))
                elif crossed and shared:
                    at = next(n for n in self.edits.gone if self._owner(n) == crossed)
                    self._problem(at, f"what follows {crossed} writes in place, into a tensor that is read elsewhere")
                break

    def _source(self, value: fx.Node) -> tuple[str, bool]:
        """The last vanished module between a value and the tensor that will hold it, and whether others see that."""
        crossed, shared = "", False
        while True:
            shared |= len(value.users) > 1
            owner = self._owner(value)
            passes = owner in self.changes.becomes
            if value.op != "call_function":
                return crossed, shared or value.op == "placeholder"
            if not passes and not (may_alias(value) or wrote(value) or value.target.__name__ == "getitem"):  # type: ignore[union-attr]
                return crossed, shared
            if not value.args or not isinstance(value.args[0], fx.Node):
                return crossed, True
            crossed = owner if passes else crossed
            value = value.args[0]


def _takes(node: fx.Node, name: str) -> bool:
    """Whether an operator has an argument of a name, left out or None."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or all(a.name != name for a in target._schema.arguments):
        return False
    return arguments(node).get(name) is None


def store(module: nn.Module, changes: Changes) -> None:
    """New numbers for what a module holds, in place, and the parameters that were absent."""
    held = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for target, array in changes.values.items():
        tensor = held[target]
        tensor.data = to_tensor(array, tensor)
    for (path, name), array in changes.copied.items():
        layer = module.get_submodule(path)
        shared = layer.get_parameter(name)
        layer.register_parameter(name, nn.Parameter(to_tensor(array, shared), requires_grad=shared.requires_grad))
    for (path, name), array in changes.added.items():
        layer = module.get_submodule(path)
        like = next(t for t in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))
        trains = any(p.requires_grad for p in layer.parameters(recurse=False))
        layer.register_parameter(name, nn.Parameter(to_tensor(array, like), requires_grad=trains))
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            layer.affine = True
    for path in changes.out_of_place:
        module.get_submodule(path).inplace = False  # type: ignore[assignment]
