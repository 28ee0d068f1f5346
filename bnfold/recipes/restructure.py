"""The changes of a recipe carried out on a network: its modules become what the recipe says, numbers aside.

Nothing is made that the recipe's vocabulary does not name, and a change that does not suit its module is refused.
"""

from __future__ import annotations

import torch
from torch import nn

from bnfold.frontends.modules.layers import Zero
from bnfold.frontends.modules.prepare import bake
from bnfold.frontends.modules.regions import Rest, become, turn_into
from bnfold.recipes.recipe import COUNTS, FLAGS, WINDOWS, Change, Recipe, Setting
from bnfold.wording import printable

CONVOLUTION = nn.modules.conv._ConvNd
WINDOWED = (*WINDOWS, "groups", "in_channels", "out_channels")


def restructure(module: nn.Module, recipe: Recipe) -> None:
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
        elif change.becomes == "zero":
            device = _device(module, layer)  # no file holds the number of a 0, so that it must have one by itself
            turn_into(layer, Zero(getattr(torch, change.dtype), None if device.type == "meta" else device))
        elif change.becomes == "layer":
            turn_into(layer, _layer(module, layer, change))
        else:
            made = [getattr(nn, name)(**dict(arguments)) for name, arguments in change.activations]
            become(layer, Rest(change.children, tuple(made)))


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


def _layer(module: nn.Module, layer: nn.Module, change: Change) -> nn.Module:
    """The layer that computes several branches, in the place of one that does not; without numbers."""
    name, arguments = change.layer
    own = [*layer.parameters()] or [*module.parameters()]
    made: nn.Module = getattr(nn, name)(
        **arguments, bias="bias" in change.adds, device="meta", dtype=getattr(torch, change.dtype)
    )
    made.requires_grad_(any(parameter.requires_grad for parameter in own))
    return made.to_empty(device=_device(module, layer))


def _device(module: nn.Module, layer: nn.Module) -> torch.device:
    """Where a module computes: where its tensors are, or those of the network."""
    tensors = [*layer.parameters(), *layer.buffers(), *module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.get_default_device()


def _untie(layer: nn.Module, name: str) -> None:
    """A parameter that is shared with other modules becomes one of its own."""
    shared = layer._parameters.get(name)
    if shared is None:
        raise ValueError(f"there is no parameter {printable(name, 60)}")
    layer._parameters[name] = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)


def _alter(layer: nn.Module, change: Change) -> None:
    if change.plain and not bake(layer, {""}):
        raise ValueError(f"{change.path} computes no weight")
    for name in change.unties:
        _untie(layer, name)
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
