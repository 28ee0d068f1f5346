"""A network before it is followed: unwrapped, refused where it cannot be folded, copied; its hooks and weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from bnfold.errors import UnsupportedError, UsageError
from bnfold.frontends.modules.untouched import memory_of

COMPUTE_WEIGHTS = ("WeightNorm", "SpectralNorm")  # hooks of torch.nn.utils that are part of the program


def unwrapped(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network inside wrappers that only run it elsewhere or faster."""
    notes: list[str] = []
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module, tuple(notes)
        notes.append(f"{type(module).__name__} was unwrapped; wrap the result again where you want it")
        module = inner


def refuse(module: nn.Module) -> None:
    """What cannot be folded at all."""
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError(
            "the model is TorchScript, whose class cannot be kept",
            "Pass the Python model, or convert the file with bnfold.convert.",
        )
    if module.training:
        raise UsageError(
            "the model is in training mode, where a BatchNorm follows its batch and cannot be folded",
            "Call model.eval() first.",
        )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise UsageError(
                f"{name} has no shape yet: the model is lazy and was never called", "Call the model on a batch first."
            )
        if tensor.device.type == "meta":
            raise UnsupportedError(
                f"{name} is on the meta device: there are no numbers to fold",
                "Load the weights first, e.g. by model.to_empty(device='cpu') and model.load_state_dict(...).",
            )


def copied(module: nn.Module, *, sharing: bool = False) -> nn.Module:
    """A copy of a network; what a hook computes anew at each call need not be a leaf.

    Args:
        module: The network.
        sharing: Whether plain parameters and buffers are new objects on the old memory, until they `part`.
    """
    attributes = [value for layer in module.modules() for value in vars(layer).values()]
    memo: dict[int, Any] = {
        id(t): t.detach().clone() for t in attributes if isinstance(t, torch.Tensor) and not t.is_leaf
    }
    for tensor in (*module.parameters(), *module.buffers()) if sharing else ():
        if type(tensor) is nn.Parameter and not tensor.is_inference() and not vars(tensor):
            memo[id(tensor)] = nn.Parameter(tensor.detach(), tensor.requires_grad)
        elif type(tensor) is torch.Tensor and tensor.is_leaf and not tensor.is_inference() and not vars(tensor):
            memo[id(tensor)] = tensor.detach()
    return copy.deepcopy(module, memo)


def shared_with(ours: Iterable[torch.Tensor], module: nn.Module) -> list[torch.Tensor]:
    """Those tensors of a copy that are still on memory of the original."""
    theirs = {memory_of(t) for t in (*module.parameters(), *module.buffers())} - {None}
    return [t for t in ours if memory_of(t) in theirs]


def part(tensors: Iterable[torch.Tensor]) -> None:
    """Give tensors memory of their own."""
    for tensor in tensors:
        tensor.data = tensor.detach().clone()


def observed(module: nn.Module) -> frozenset[str]:
    """Paths of modules that call somebody back."""
    found = set()
    for path, each in module.named_modules():
        before = [h for h in each._forward_pre_hooks.values() if type(h).__name__ not in COMPUTE_WEIGHTS]
        if before or each._forward_hooks or each._backward_hooks or each._backward_pre_hooks:
            found.add(path)
    return frozenset(found)


def bake(module: nn.Module, paths: set[str]) -> bool:
    """Turn weights that are computed from parameters into parameters, in place."""
    done = False
    for path in paths:
        layer = module.get_submodule(path)
        with torch.no_grad():
            if nn.utils.parametrize.is_parametrized(layer):
                _bake_parametrized(layer)
                done = True
                continue
            for remove in (nn.utils.remove_weight_norm, nn.utils.remove_spectral_norm):
                try:
                    remove(layer)
                    done = True
                except ValueError:
                    continue
            for key, hook in [*layer._load_state_dict_pre_hooks.items()]:  # torch 2.13 does not find its own
                if type(getattr(hook, "hook", hook)).__name__ == "SpectralNormLoadStateDictPreHook":
                    del layer._load_state_dict_pre_hooks[key]
    return done


def _bake_parametrized(layer: nn.Module) -> None:
    """What remove_parametrizations does, which would also change the class that the layer shares with its original."""
    values = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}  # type: ignore[union-attr]
    layer.__class__ = type(layer).__bases__[0]
    del layer._modules["parametrizations"]
    for name, value in values.items():
        layer.register_parameter(name, nn.Parameter(value))
