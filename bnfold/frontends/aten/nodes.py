"""Nodes of an exported graph: their names, their arguments by the names of the schema, and the tensors behind them."""

from __future__ import annotations

import operator
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from bnfold.units.affine import round_once

Place = tuple[int, ...]  # of an argument: its position, then the position in a list

BATCH_NORMS = frozenset(
    {
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_no_update",
        "_batch_norm_with_update",
        "_batch_norm_with_update_functional",
        "batch_norm",
        "batch_norm_with_update",
        "cudnn_batch_norm",
        "miopen_batch_norm",
        "native_batch_norm",
    }
)
NAMED_AFTER_MODULES = BATCH_NORMS | {
    "addmm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "linear",
    "matmul",
    "mm",
}


def module_stack(node: fx.Node) -> tuple[str, ...]:
    """Paths of the modules a node was made in, outermost first; `@n` is cut off: which call it was."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ()
    paths = [entry[0] for entry in stack.values()]
    if any(not isinstance(path, str) or path.startswith("_empty_nn_module_stack") for path in paths):
        return ()
    return tuple(path.split("@")[0] for path in paths)


def fake(node: fx.Node) -> torch.Tensor | None:
    """The tensor without numbers that stands for a value, None where it is no tensor."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def opname(node: fx.Node) -> str:
    """`conv2d` for `aten.conv2d.default`; empty for what is not an ATen operator."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        return str(target._opname)
    return ""


def overload(node: fx.Node) -> str:
    """`Tensor` for `aten.add.Tensor`."""
    return str(getattr(node.target, "_overloadname", ""))


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an ATen operator by the names of its schema, defaults included."""
    schema = node.target._schema  # type: ignore[union-attr]
    found = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    found.update(zip((a.name for a in schema.arguments), node.args, strict=False))
    found.update(node.kwargs)
    return found


def position(node: fx.Node, name: str) -> int:
    """Where an argument stands among the positional ones."""
    return next(i for i, a in enumerate(node.target._schema.arguments) if a.name == name)  # type: ignore[union-attr]


UNINITIALISED = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")


def is_drawn(node: fx.Node) -> bool:
    """Whether what a node makes may be another one at every call: random numbers, or memory that nobody wrote."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if opname(node) in UNINITIALISED:
        return True
    off = (("train", False), ("training", False), ("p", 0), ("dropout_p", 0))  # dropout that does nothing
    return torch.Tag.nondeterministic_seeded in node.target.tags and not any(
        _argument(node, name) == value for name, value in off
    )


def _argument(node: fx.Node, name: str) -> object:
    """What a node passes for an argument, or its default; None where there is no such argument."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for at, argument in enumerate(node.target._schema.arguments):
        if argument.name == name:
            return node.args[at] if at < len(node.args) else node.kwargs.get(name, argument.default_value)
    return None


def results(node: fx.Node) -> tuple[fx.Node, ...]:
    """The values that a node makes: itself, or the elements taken from the tuple it returns."""
    if fake(node) is not None:
        return (node,)
    return tuple(user for user in node.users if user.target is operator.getitem)


def sole_result(node: fx.Node) -> fx.Node | None:
    """What a node makes, if that is one tensor, or a tuple of which nothing but the first element is used."""
    if fake(node) is not None:
        return node
    first = element(node, 0)
    used = [value for value in results(node) if value.users]
    return first[0] if len(first) == 1 and set(used) <= set(first) else None


def element(node: fx.Node, index: int) -> list[fx.Node]:
    """The nodes that take one element from a tuple."""
    return [user for user in node.users if user.target is operator.getitem and user.args[1] == index]


def places_of(user: fx.Node, node: fx.Node) -> list[Place]:
    """Where among a node's arguments a value stands."""
    found: list[Place] = []
    for i, arg in enumerate(user.args):
        if arg is node:
            found.append((i,))
        elif isinstance(arg, list | tuple):
            found += [(i, j) for j, part in enumerate(arg) if part is node]
    return found


def argument(node: fx.Node, place: Place) -> object:
    """What stands at a place among a node's arguments, given or not."""
    name = argument_name(node, place)
    if len(place) == 1 and place[0] >= len(node.args):
        return node.kwargs.get(name) if name is not None else None
    value = node.args[place[0]]
    return value[place[1]] if len(place) > 1 else value  # type: ignore[index]


def argument_name(node: fx.Node, place: Place) -> str | None:
    """The name of the argument at a place; None for a part of a list."""
    if len(place) > 1 or not isinstance(node.target, torch._ops.OpOverload):
        return None
    return str(node.target._schema.arguments[place[0]].name)


def set_argument(node: fx.Node, place: Place, new: fx.Node) -> None:
    """Put a value at a place; arguments before it that were left out get their defaults."""
    args = list(node.args)
    name = argument_name(node, place)
    if name is not None and name in node.kwargs:
        node.kwargs = {**node.kwargs, name: new}
        return
    if isinstance(node.target, torch._ops.OpOverload):
        schema = node.target._schema.arguments
        while len(args) <= place[0]:
            args.append(node.kwargs.get(schema[len(args)].name, schema[len(args)].default_value))
        node.kwargs = {
            key: value for key, value in node.kwargs.items() if key not in {a.name for a in schema[: len(args)]}
        }
    if len(place) > 1:
        inner = list(args[place[0]])  # type: ignore[arg-type]
        inner[place[1]] = new
        args[place[0]] = inner
    else:
        args[place[0]] = new
    node.args = tuple(args)


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The same element type in NumPy."""
    if dtype == torch.bfloat16:
        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    else:
        found = torch.empty(0, dtype=dtype).numpy().dtype
    return found


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor as an array of the same element type, without a copy where that is possible."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:
        return plain.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return plain.numpy()


def to_tensor(array: NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    """An array as a tensor of the element type and on the device of another."""
    rounded = round_once(array, numpy_dtype(like.dtype)) if array.dtype == np.float64 else array
    fresh = rounded.flags.owndata and rounded.flags.c_contiguous and rounded.dtype != np.float64
    plain = rounded if fresh else np.array(rounded, order="C")  # rounding has made a copy already
    if plain.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(plain.view(np.int16)).view(torch.bfloat16).to(like.device)
    return torch.from_numpy(plain).to(like.device)
