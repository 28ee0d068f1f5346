"""What a network is followed with: the example inputs, and what to say of those it does not take."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from bnfold.errors import UsageError
from bnfold.frontends.modules.trial import Call
from bnfold.wording import first_line


def call_of(example_inputs: Any, dynamic_shapes: Any) -> Call:
    """The call that example inputs stand for.

    Raises:
        UsageError: There are none, or they hold NumPy arrays, which torch.export does not follow.
    """
    if example_inputs is None:
        raise UsageError(
            "bnfold.fold needs example inputs to follow an nn.Module",
            "Pass bnfold.fold(model, (torch.randn(1, 3, 224, 224),)), with inputs of the right shape.",
        )
    for path, leaf in pytree.tree_flatten_with_path(example_inputs)[0]:
        if isinstance(leaf, np.ndarray):
            name = f"example_inputs{pytree.keystr(path)}"
            raise UsageError(f"{name} is a numpy array", "Pass torch.from_numpy(x), with x the array.")
    if isinstance(example_inputs, Mapping):
        return Call((), dict(example_inputs), dynamic_shapes)
    if isinstance(example_inputs, Sequence):
        return Call(tuple(example_inputs), {}, dynamic_shapes)
    return Call((example_inputs,), {}, dynamic_shapes)


def refuse_what_it_does_not_take(module: nn.Module, call: Call) -> None:
    """Calls a copy of a network that could not be exported, to tell wrong inputs from what torch cannot export.

    Raises:
        UsageError: The call fails by itself.
    """
    try:
        twin, args, kwargs = copy.deepcopy((module, call.args, call.kwargs))
    except Exception:  # what copying somebody's class raises is not known; nothing can be said then
        return
    try:
        with torch.no_grad():
            twin(*args, **kwargs)
    except Exception as error:
        given = _described(module, call)
        raise UsageError(
            f"{type(module).__name__} does not take {given}: {first_line(error)}", _instead(call)
        ) from error


def _described(module: nn.Module, call: Call) -> str:
    """`x 2x1x32x32 float32`: every argument, with the names of the parameters where they fit at all."""
    try:
        named = dict(inspect.signature(module.forward).bind(*call.args, **call.kwargs).arguments)
        unnamed: tuple[Any, ...] = ()
    except (TypeError, ValueError):
        named, unnamed = call.kwargs, call.args
    said = [_kind(leaf) for leaf in pytree.tree_leaves(unnamed)]
    for name, value in named.items():
        leaves, _ = pytree.tree_flatten_with_path(value)
        said += [f"{name}{pytree.keystr(path)} {_kind(leaf)}" for path, leaf in leaves]
    return ", ".join(said) or "a call without arguments"


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{'x'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    return repr(value)[:40]


def _instead(call: Call) -> str:
    sizes = [*call.args, *call.kwargs.values()]
    if len(sizes) > 1 and all(type(size) is int for size in sizes):
        return f"These are the sizes of a tensor: pass the tensor, e.g. torch.randn({', '.join(map(str, sizes))})."
    return "Pass inputs of the shape and dtype the network was trained with."
