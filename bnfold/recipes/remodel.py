"""A recipe carried out on a fresh network of the class: it becomes the folded one, and takes the folded weights.

A skeleton is changed first, a copy of the network without numbers: only when the skeleton takes every tensor of the
file is the network itself touched.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bnfold.errors import InputError, UnsupportedError
from bnfold.recipes.recipe import Recipe
from bnfold.recipes.restructure import held, restructure
from bnfold.wording import listed, printable

OTHER_NETWORK = "Pass the network that was folded, built with the same arguments and without its weights changed."


@dataclass(frozen=True)
class FoldedState:
    """A folded state dict as it is stored.

    Attributes:
        tensors: By their names in the folded network.
        recipe: How a fresh network becomes the folded one.
    """

    tensors: Mapping[str, torch.Tensor]
    recipe: Recipe


def restore_into(module: nn.Module, folded: FoldedState, path: str, what: str) -> tuple[str, ...]:
    """Makes a fresh network the folded one, in place, and loads its weights; one in training mode leaves it.

    Args:
        module: The network as its class builds it; left as it is if anything does not fit.
        folded: What was stored.
        path: Where, for messages.
        what: What to call the network.

    Returns:
        Notes for the user.

    Raises:
        InputError: It is not the network that was folded.
    """
    check(module, folded, path, what)
    restructure(module, folded.recipe)
    places = _places(module)
    with torch.no_grad():
        for name, value in folded.tensors.items():
            _load(*places[name], value)
    if module.training:
        module.eval()
    count = len(folded.recipe.changes)
    return (f"folded state dict: {len(folded.tensors)} tensors, {count} module{'' if count == 1 else 's'} changed",)


def _load(owner: nn.Module, name: str, value: torch.Tensor) -> None:
    """Numbers into a parameter or buffer, which is a new one where it had none."""
    tensor = held(owner)[name]
    if not tensor.is_meta:
        tensor.copy_(value)
    elif isinstance(tensor, nn.Parameter):
        owner._parameters[name] = nn.Parameter(value.to(tensor.dtype, copy=True), requires_grad=tensor.requires_grad)
    else:
        owner._buffers[name] = value.to(tensor.dtype, copy=True)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a state dict."""
    return {name: tuple(v.shape) for name, v in module.state_dict().items() if isinstance(v, torch.Tensor)}


def check(module: nn.Module, folded: FoldedState, path: str, what: str) -> nn.Module:
    """Tries everything on a copy without numbers.

    Returns:
        The copy, as the network will be.

    Raises:
        InputError: Something does not fit.
    """
    source, have = ({n: "x".join(map(str, s)) for n, s in t.items()} for t in (folded.recipe.source, shapes(module)))
    if source != have:
        differ = [name for name in {**source, **have} if source.get(name) != have.get(name)]
        raise InputError(
            f"{path} was folded from another network than {what}: {listed(differ)} {_differ(source, have, differ[0])}",
            OTHER_NETWORK,
        )
    computed = [
        value for layer in module.modules() for value in vars(layer).values() if isinstance(value, torch.Tensor)
    ]
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers(), *computed)}
    memo: dict[int, Any] = {key: _hollow(tensor) for key, tensor in tensors.items()}
    try:
        skeleton = copy.deepcopy(module, memo)
    except Exception as error:
        raise UnsupportedError(
            f"{what} cannot be copied: {str(error).splitlines()[0]}", "Restore it by hand."
        ) from error
    try:
        restructure(skeleton, folded.recipe)
    except (AttributeError, TypeError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{path} does not fit {what}: {printable(str(error), 200)}", OTHER_NETWORK) from error
    kept = {*skeleton.state_dict(), *folded.recipe.buffers}
    needed = {name: _kind(getattr(*place)) for name, place in _places(skeleton).items() if name in kept}
    stored = {name: _kind(value) for name, value in folded.tensors.items()}
    if needed != stored:
        differ = [name for name in {**needed, **stored} if needed.get(name) != stored.get(name)]
        raise InputError(
            f"{path} does not fit {what}: {listed(differ)} {_differ(stored, needed, differ[0])}", OTHER_NETWORK
        )
    return skeleton


def _kind(tensor: torch.Tensor) -> str:
    """What must agree: the shape, and whether the numbers are real; the width of a float may differ."""
    shape = "x".join(map(str, tensor.shape)) or "a scalar"
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype).removeprefix('torch.')}"


def _hollow(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach().to("meta"), requires_grad=tensor.requires_grad)
    return tensor.detach().to("meta")


def _differ(stored: Mapping[str, str], have: Mapping[str, str], name: str) -> str:
    said = [table.get(name, "absent") or "a scalar" for table in (stored, have)]
    return f"(the first is {said[0]} in the file and {said[1]} in the network)"


def _places(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The module and the attribute that hold each parameter and buffer, by its full name."""
    found = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for last in held(owner):
            found[f"{path}.{last}" if path else last] = (owner, last)
    return found
