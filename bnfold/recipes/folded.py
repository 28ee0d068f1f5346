"""The recipe that leads from an unfolded network to the folded one of the same class.

It is read off the two networks, not off what the fold did: whatever they differ in is either in the recipe's
vocabulary, or is refused in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bnfold.errors import InputError, UnsupportedError
from bnfold.frontends.modules.layers import Zero
from bnfold.recipes.recipe import ACTIVATIONS, LAYERS, Change, Recipe, Setting
from bnfold.recipes.remodel import FoldedState, check, shapes
from bnfold.recipes.restructure import held, may_set
from bnfold.wording import printable

INTERNAL = frozenset(vars(nn.Module())) | {"_reversed_padding_repeated_twice"}


def folded_state(before: nn.Module, after: nn.Module, *, sha256: str, version: str) -> FoldedState:
    """What to store of a folded network.

    Args:
        before: The network that was folded.
        after: The same class, folded.
        sha256: Of the file that the unfolded weights came from.
        version: Of bnfold.

    Raises:
        UnsupportedError: A fresh network could not become the folded one.
    """
    state = after.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise _not_restorable(f"its state holds {printable(name)}, which is no tensor")
    loose = _loose_buffers(before, after)
    tensors = {name: value.detach() for name, value in (state | loose).items()}
    for name, value in tensors.items():
        if value.layout != torch.strided:
            raise _not_restorable(f"{printable(name)} is sparse")
    recipe = Recipe(tuple(_changes(before, after)), shapes(before), tuple(loose), sha256, version)
    made = FoldedState(tensors, recipe)
    try:
        skeleton = check(before, made, "the folded network", type(before).__name__)
    except InputError as error:
        raise _not_restorable(error.what) from error
    theirs = _ties(after)
    for place, tie in _ties(skeleton).items():
        if theirs.get(place) != tie:
            raise _not_restorable(f"other modules than before share {place[0]}.{place[1]}")
    return made


Place = tuple[str, str]  # the path of a module, and the name of a parameter that it holds itself


def _ties(module: nn.Module) -> dict[Place, Place]:
    """For each parameter of each module, where that parameter is found first."""
    first: dict[int, Place] = {}
    return {
        (path, name): first.setdefault(id(tensor), (path, name))
        for path, layer in module.named_modules()
        for name, tensor in layer._parameters.items()
        if tensor is not None
    }


def _untied(before: nn.Module, after: nn.Module) -> dict[str, tuple[str, ...]]:
    """Parameters that modules shared and have for themselves now; those that most still share stay tied."""
    ours, theirs = _ties(before), _ties(after)
    shared: dict[Place, list[Place]] = {}
    for place, first in ours.items():
        if place in theirs:
            shared.setdefault(first, []).append(place)
    found: dict[str, tuple[str, ...]] = {}
    for places in shared.values():
        [(most, _)] = Counter(theirs[place] for place in places).most_common(1)
        for path, name in (place for place in places if theirs[place] != most):
            found[path] = (*found.get(path, ()), name)
    return found


def _changes(before: nn.Module, after: nn.Module) -> Iterator[Change]:
    """What became of each module, outer ones first."""
    theirs = dict(after.named_modules(remove_duplicate=False))
    untied = _untied(before, after)
    replaced: list[str] = []
    for path, ours in before.named_modules():
        if any(path.startswith(f"{outer}.") for outer in replaced) and path not in theirs:
            continue
        if path not in theirs:
            raise _not_restorable(f"{path} is gone")
        change = _change(path, ours, theirs[path], untied.get(path, ()))
        if change is None:
            continue
        if change.becomes != "itself" or change.plain:
            replaced.append(path)
        yield change


def _change(path: str, before: nn.Module, after: nn.Module, untied: tuple[str, ...]) -> Change | None:
    if isinstance(after, torch.jit.ScriptModule):
        return None  # a fold leaves it as it is, and its tables are not those of other modules
    was = type(before).__name__
    kinds = (type(before), type(after))
    same_children = [name for name, _ in before.named_children()] == [name for name, _ in after.named_children()]
    if kinds[1] is nn.Identity and kinds[0] is not nn.Identity:
        return Change(path, was, "identity")
    if kinds[1] is Zero and kinds[0] is not Zero:
        return Change(path, was, "zero", dtype=_dtype(after.zero))
    if kinds[1] is nn.Sequential and (kinds[0] is not nn.Sequential or not same_children):
        names = [name for name, _ in after.named_children()]
        own = dict(before.named_children())
        if names and all(name in own for name in names):
            return Change(path, was, "children", children=tuple(names))
        left = [_activation(path, child) for child in after.children()]
        return Change(path, was, "activations", activations=tuple(left))
    if kinds[0] is not kinds[1] and kinds[1].__name__ in ACTIVATIONS:
        return Change(path, was, "activations", activations=(_activation(path, after),))
    plain = _plain(before, after)
    if not plain and kinds[0] is not kinds[1] and kinds[1].__name__ in LAYERS:
        return _layer(path, was, after)
    if kinds[0] is not kinds[1] and not (plain and kinds[1] is kinds[0].__bases__[0]):
        raise _not_restorable(f"{path or 'the network'} became a {kinds[1].__name__}")
    adds, drops = _parameters(path, before, after, plain)
    sets = _settings(path, before, after)
    if not (adds or drops or sets or plain or untied):
        return None
    return Change(path, was, "itself", sets=sets, adds=adds, drops=drops, plain=plain, unties=untied)


def _layer(path: str, was: str, after: nn.Module) -> Change:
    """A layer of torch.nn in the place of a module of another class."""
    name = type(after).__name__
    if type(after) is not getattr(nn, name) or getattr(after, "padding_mode", "zeros") != "zeros":
        raise _not_restorable(f"{path} became a {name}")
    arguments = {key: getattr(after, key) for key in LAYERS[name]}
    adds = () if after.bias is None else ("bias",)
    return Change(path, was, "layer", layer=(name, arguments), dtype=_dtype(after.weight), adds=adds)


def _dtype(tensor: object) -> str:
    assert isinstance(tensor, torch.Tensor)
    return str(tensor.dtype).removeprefix("torch.")


def _activation(path: str, module: nn.Module) -> tuple[str, dict[str, Any]]:
    name = type(module).__name__
    if name not in ACTIVATIONS or type(module) is not getattr(nn, name):
        raise _not_restorable(f"{path} became a {name}")
    return name, {key: getattr(module, key) for key in ACTIVATIONS[name]}


def _plain(before: nn.Module, after: nn.Module) -> tuple[str, ...]:
    """Weights that were computed from parameters of a module, by a parametrization or by a hook, and are not now."""
    if nn.utils.parametrize.is_parametrized(before) and not nn.utils.parametrize.is_parametrized(after):
        return tuple(before.parametrizations)  # type: ignore[arg-type]
    computed = [name.removesuffix("_g") for name in before._parameters if name.endswith("_g")]
    computed += [name.removesuffix("_orig") for name in before._parameters if name.endswith("_orig")]
    return tuple(name for name in computed if name in after._parameters and name not in before._parameters)


def _parameters(
    path: str, before: nn.Module, after: nn.Module, plain: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of parameters and buffers that came, and that went; weights that became plain are neither."""
    ours, theirs = held(before), held(after)
    adds = tuple(name for name in theirs if name not in ours and name not in plain)
    parts = {f"{name}{end}" for name in plain for end in ("_g", "_v", "_orig", "_u")}
    drops = tuple(name for name in ours if name not in theirs and name not in parts)
    for name in adds:
        if name not in before._parameters or name not in ("weight", "bias"):
            raise _not_restorable(f"{path} got a {name}")
    return adds, drops


def _settings(path: str, before: nn.Module, after: nn.Module) -> dict[str, Setting]:
    """Attributes of one value before and another after; of those that are no plain data nothing is said."""
    sets: dict[str, Setting] = {}
    ours, theirs = vars(before), vars(after)
    for name in sorted(set(ours) & set(theirs) - INTERNAL):
        old, new = ours[name], theirs[name]
        if not (_is_plain(old) and _is_plain(new)) or (type(old) is type(new) and old == new):
            continue
        if not may_set(before, name):
            raise _not_restorable(f"{path}.{name} became {printable(repr(new), 60)}")
        sets[name] = new
    return sets


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _loose_buffers(before: nn.Module, after: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers outside the state dict that are not what a fresh network has."""
    kept = set(after.state_dict())
    ours = dict(before.named_buffers(remove_duplicate=False))
    found = {}
    for name, value in after.named_buffers(remove_duplicate=False):
        if isinstance(after.get_submodule(name.rpartition(".")[0]), Zero):
            continue  # its number needs no file
        if name not in kept and (name not in ours or not _equal(ours[name], value)):
            found[name] = value
    return found


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if (a.shape, a.dtype, a.layout) != (b.shape, b.dtype, b.layout):
        return False
    return torch.equal(a, b) if a.layout == torch.strided else torch.equal(a.to_dense(), b.to_dense())


def _not_restorable(why: str) -> UnsupportedError:
    return UnsupportedError(
        f"the folded network cannot be restored from a state dict: {why}",
        "Give the output the suffix .pt2: a program holds weights and graph.",
    )
