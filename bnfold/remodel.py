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
from bnfold.frontends.modules.prepare import bake
from bnfold.frontends.modules.regions import Rest, become
from bnfold.recipe import COUNTS, FLAGS, WINDOWS, Change, Recipe, Setting
from bnfold.wording import listed, printable

CONVOLUTION = nn.modules.conv._ConvNd
WINDOWED = (*WINDOWS, "groups", "in_channels", "out_channels")
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
    _remodel(module, folded.recipe)
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


def held(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a module itself, by name."""
    tables = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tables.items() if tensor is not None}


def may_set(module: nn.Module, name: str) -> bool:
    """Whether a recipe may set an attribute of a module."""
    if name == "inplace":
        return isinstance(getattr(module, name, None), bool)
    if name == "affine":
        return isinstance(module, nn.modules.batchnorm._NormBase)
    if isinstance(module, nn.Linear):
        return name in ("in_features", "out_features")
    return isinstance(module, CONVOLUTION) and name in WINDOWED


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a state dict."""
    return {name: tuple(v.shape) for name, v in module.state_dict().items() if isinstance(v, torch.Tensor)}


def check(module: nn.Module, folded: FoldedState, path: str, what: str) -> None:
    """Tries everything on a copy without numbers.

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
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    memo: dict[int, Any] = {key: _hollow(tensor) for key, tensor in tensors.items()}
    try:
        skeleton = copy.deepcopy(module, memo)
    except Exception as error:
        raise UnsupportedError(
            f"{what} cannot be copied: {str(error).splitlines()[0]}", "Restore it by hand."
        ) from error
    try:
        _remodel(skeleton, folded.recipe)
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


def _remodel(module: nn.Module, recipe: Recipe) -> None:
    """Carries out a recipe, in place; numbers are not loaded yet.

    Raises:
        AttributeError: The network has no such module.
        ValueError: A change does not suit the module it is for.
    """
    for change in recipe.changes:
        layer = module.get_submodule(change.path)
        if type(layer).__name__ != change.was:
            raise ValueError(f"{change.path} is a {type(layer).__name__}, and was a {change.was}")
        if change.becomes == "itself":
            _alter(layer, change)
        else:
            made = [getattr(nn, name)(**dict(arguments)) for name, arguments in change.activations]
            become(layer, Rest(change.children, tuple(made)))


def _alter(layer: nn.Module, change: Change) -> None:
    if change.plain and not bake(layer, {""}):
        raise ValueError(f"{change.path} computes no weight")
    for name in change.drops:
        if name not in held(layer):
            raise ValueError(f"{change.path} has no {name}")
        (layer._parameters if name in layer._parameters else layer._buffers)[name] = None
    for name, value in change.sets.items():
        if not may_set(layer, name) or not _suits(getattr(layer, name), value, name):
            raise ValueError(f"{change.path} has no {name} that could be {printable(repr(value), 60)}")
        setattr(layer, name, value)
    if set(change.sets) & {*WINDOWED, "in_features", "out_features"}:
        _resize(layer)
    for name in change.adds:
        if name not in layer._parameters or layer._parameters[name] is not None:
            raise ValueError(f"{change.path} has no room for a {name}")
        trains = any(p.requires_grad for p in layer.parameters(recurse=False))
        like = next(iter(held(layer).values()))
        layer._parameters[name] = nn.Parameter(like.new_empty(_width(layer, change.path)), requires_grad=trains)


def _suits(old: object, new: Setting, name: str) -> bool:
    if name in FLAGS or name in COUNTS:
        return type(old) is type(new)
    if isinstance(new, str):
        return name == "padding"
    return isinstance(new, tuple) and (name == "padding" or (isinstance(old, tuple) and len(new) == len(old)))


def _width(layer: nn.Module, path: str) -> int:
    """The number of channels of what a layer makes, which is the length of its bias."""
    for name in ("out_channels", "out_features", "num_features"):
        width = getattr(layer, name, None)
        if isinstance(width, int):
            return width
    raise ValueError(f"{path} has no channels")


def _resize(layer: nn.Module) -> None:
    """A weight of the shape that a layer's hyper-parameters now ask for."""
    old = layer._parameters["weight"]
    assert old is not None
    if isinstance(layer, nn.Linear):
        shape: tuple[int, ...] = (layer.out_features, layer.in_features)
    else:
        assert isinstance(layer, CONVOLUTION)
        if layer.in_channels % layer.groups or layer.out_channels % layer.groups:
            raise ValueError(f"{layer.groups} groups do not divide the channels")
        outer, inner = layer.out_channels, layer.in_channels
        pair = (inner, outer // layer.groups) if layer.transposed else (outer, inner // layer.groups)
        shape = (*pair, *layer.kernel_size)
        if isinstance(layer.padding, tuple):
            layer._reversed_padding_repeated_twice = [size for size in reversed(layer.padding) for _ in range(2)]
    if tuple(old.shape) != shape:
        layer._parameters["weight"] = nn.Parameter(old.new_empty(shape), requires_grad=old.requires_grad)
