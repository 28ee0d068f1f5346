"""What a module becomes when operators inside it vanish: nothing, or the part of it that is left.

A region is what one call of a module leaves in the graph. Where every operator of a region vanishes, the module becomes
`nn.Identity`; where what is left are its own children one after the other (timm's BatchNormAct2d) or plain activations,
it becomes an `nn.Sequential` of those. All calls of a module must say the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.nodes import arguments, element, fake, module_stack, opname, results
from bnfold.frontends.aten.readers import READERS
from bnfold.frontends.aten.structure import read_nothing
from bnfold.frontends.modules.probes import returns_tensor

ACTIVATIONS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "elu": lambda a: nn.ELU(a["alpha"]),
    "gelu": lambda a: nn.GELU(a["approximate"]),
    "hardsigmoid": lambda a: nn.Hardsigmoid(),
    "hardswish": lambda a: nn.Hardswish(),
    "hardtanh": lambda a: nn.Hardtanh(a["min_val"], a["max_val"]),
    "leaky_relu": lambda a: nn.LeakyReLU(a["negative_slope"]),
    "mish": lambda a: nn.Mish(),
    "relu": lambda a: nn.ReLU(),
    "relu6": lambda a: nn.ReLU6(),
    "sigmoid": lambda a: nn.Sigmoid(),
    "silu": lambda a: nn.SiLU(),
    "tanh": lambda a: nn.Tanh(),
}


@dataclass(frozen=True)
class Rest:
    """What is left of a module.

    Attributes:
        children: Names of the children that are left, in the order of their call.
        activations: Operators of its own that are left, as modules.
    """

    children: tuple[str, ...] = ()
    activations: tuple[nn.Module, ...] = ()

    def same(self, other: Rest) -> bool:
        """Whether two calls leave the same."""
        mine, theirs = ([repr(a) for a in rest.activations] for rest in (self, other))
        return self.children == other.children and mine == theirs


def rest_of(
    path: str, module: nn.Module, calls: list[list[fx.Node]], gone: frozenset[fx.Node], context: Context
) -> Rest | str:
    """What a module becomes when some nodes vanish, or in words why it cannot.

    Args:
        path: Where the module sits.
        module: The module.
        calls: The nodes of each of its calls.
        gone: The nodes that vanish.
        context: The program.
    """
    rests = [_rest_of_call(path, module, nodes, gone, context) for nodes in calls]
    for rest in rests:
        if isinstance(rest, str):
            return rest
    first, *others = [rest for rest in rests if isinstance(rest, Rest)]
    if not all(first.same(other) for other in others):
        return f"{path} is called several times, and not all calls become the same"
    x = next(v for n in calls[0] for v in n.all_input_nodes if v not in calls[0] and context.feature(v))
    if not returns_tensor(module, x):
        return f"{path} takes or returns more than one tensor"
    return first


def calls_of_modules(nodes: Iterable[fx.Node]) -> dict[str, list[list[fx.Node]]]:
    """The nodes of each call of each module, in order, by the module's path."""
    calls: dict[str, dict[str, list[fx.Node]]] = {}
    for node in nodes:
        for key, entry in (node.meta.get("nn_module_stack") or {}).items():
            if isinstance(entry[0], str):
                calls.setdefault(entry[0].split("@")[0], {}).setdefault(str(key), []).append(node)
    return {path: list(each.values()) for path, each in calls.items()}


def _rest_of_call(
    path: str, module: nn.Module, nodes: list[fx.Node], gone: frozenset[fx.Node], context: Context
) -> Rest | str:
    features = [n for n in nodes if not context.is_const(n) and READERS.get(opname(n)) is not read_nothing]
    features = [n for n in features if any(context.feature(v) for v in results(n)) or n in gone]
    inside = set(features)
    outer = {v for n in features for v in n.all_input_nodes if v not in inside and context.feature(v)}
    if len(outer) != 1:
        return f"{path} reads {len(outer)} tensors"
    [current] = outer
    children: list[str] = []
    activations: list[nn.Module] = []
    todo = [n for n in features if opname(n) or n.target.__name__ != "getitem"]  # type: ignore[union-attr]
    while todo:
        node = todo.pop(0)
        if context.features(node) != (current,):
            return f"{path} is not one operator after the other"
        child = _child(path, node)
        continue_at: fx.Node | None
        if node in gone:
            continue_at = _value(node)
        elif child:
            own = [n for n in [node, *todo] if _child(path, n) == child]
            continue_at = _only_way_out(own)
            todo = [n for n in todo if n not in own]
            children.append(child)
        else:
            made = _activation(node)
            if made is None:
                return f"{path} does more than normalise ({opname(node) or node.target})"
            activations.append(made)
            continue_at = node
        if continue_at is None or (current not in outer and not set(current.users) <= inside):
            return f"{path} is not one operator after the other"
        current = continue_at
    if children and activations:
        return f"{path} mixes operators of its own with those of its children"
    return Rest(_children_left(module, children), tuple(activations))


def _child(path: str, node: fx.Node) -> str:
    """The direct child of a module that a node was made in; empty for the module's own."""
    stack = module_stack(node)
    below = stack[stack.index(path) + 1 :]
    return below[0].removeprefix(f"{path}.").split(".")[0] if below else ""


def _value(node: fx.Node) -> fx.Node:
    return node if fake(node) is not None else element(node, 0)[0]


def _only_way_out(nodes: list[fx.Node]) -> fx.Node | None:
    """The only value of some nodes that others read."""
    out = [n for n in nodes if any(user not in nodes for user in n.users)]
    return out[0] if len(out) == 1 and fake(out[0]) is not None else None


def _activation(node: fx.Node) -> nn.Module | None:
    make = ACTIVATIONS.get(opname(node))
    if make is None or len(node.all_input_nodes) != 1:
        return None
    return make(arguments(node))


def _children_left(module: nn.Module, called: list[str]) -> tuple[str, ...]:
    """The children that are left: those that are called, and those that do nothing at inference but may in training."""
    silent = {name for name, child in module.named_children() if isinstance(child, nn.modules.dropout._DropoutNd)}
    if called:
        silent |= {name for name, child in module.named_children() if isinstance(child, nn.Identity)}
    names = [name for name, _ in module.named_children() if name in called or name in silent]
    return tuple(names) if [name for name in names if name in called] == called else tuple(called)


def become(module: nn.Module, rest: Rest) -> None:
    """Turn a module, in place, into what is left of it: every reference to it sees the change."""
    kept = OrderedDict((name, module.get_submodule(name)) for name in rest.children)
    made: nn.Module
    if kept:
        made = nn.Sequential(kept)
    elif len(rest.activations) == 1:
        made = rest.activations[0]
    elif rest.activations:
        made = nn.Sequential(*rest.activations)
    else:
        made = nn.Identity()
    turn_into(module, made)


def turn_into(module: nn.Module, made: nn.Module) -> None:
    """Turn a module, in place, into another one: every reference to it sees the change."""
    made.train(module.training)
    module.__class__ = type(made)
    module.__dict__.clear()
    module.__dict__.update(made.__dict__)
