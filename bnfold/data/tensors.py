"""PyTorch's tensors and the arrays everything else counts in; the half-width floats that NumPy has no type for too."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from bnfold.errors import UnsupportedError, UsageError

ONNX_NAMES = {"float32": "float", "float64": "double"}  # the others are called the same


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor's numbers, wherever it lives."""
    import ml_dtypes

    tensor = tensor.detach().to("cpu")
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype is torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    except TypeError as error:
        raise UnsupportedError(f"NumPy has no type for {tensor.dtype}", "Return another type of tensor.") from error


def to_tensor(array: NDArray[Any], device: torch.device | None = None) -> torch.Tensor:
    """A new tensor with an array's numbers.

    Raises:
        UsageError: torch has no such type.
    """
    array = np.array(array, order="C", copy=True)
    if array.dtype.name == "bfloat16":
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        try:
            tensor = torch.from_numpy(array)
        except TypeError as error:
            raise UsageError(f"torch has no dtype for an array of {array.dtype}", "Convert the array.") from error
    return tensor if device is None else tensor.to(device)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`: what NumPy (or ml_dtypes) calls a type."""
    return str(dtype).removeprefix("torch.")


def declared_type(dtype: torch.dtype) -> str:
    """`tensor(float)`: what onnxruntime calls a type, so that declarations can be compared."""
    name = dtype_name(dtype)
    return f"tensor({ONNX_NAMES.get(name, name)})"


def named_leaves(prefix: str, value: Any) -> dict[str, Any]:
    """The leaves of nested containers by their place, `output_0`, in order; without those that are None."""
    leaves, _ = pytree.tree_flatten_with_path(value)
    named = {"_".join([prefix, *(_step(step) for step in path)]): leaf for path, leaf in leaves}
    return {name: leaf for name, leaf in named.items() if leaf is not None}


def named_arrays(prefix: str, value: Any, label: str) -> dict[str, NDArray[Any]]:
    """What a network returned, as arrays by their place in it.

    Raises:
        UnsupportedError: It returned something that is not made of tensors and numbers.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, leaf in named_leaves(prefix, value).items():
        if isinstance(leaf, torch.Tensor):
            found[name] = to_array(leaf)
        elif isinstance(leaf, (bool, int, float, complex)):
            found[name] = np.asarray(leaf)
        else:
            raise UnsupportedError(
                f"{label} returns an object of type {type(leaf).__name__}, which cannot be compared",
                "Return tensors, or tuples, lists and dicts of them.",
            )
    return found


def _step(step: Any) -> str:
    return str(getattr(step, "idx", getattr(step, "key", getattr(step, "name", step))))


def weight_bytes(model: Any) -> int:
    """Size of the tensors of a module or program, each counted once however many names it has."""
    if isinstance(model, ExportedProgram):
        held = [*model.state_dict.values(), *model.constants.values()]
    else:
        held = [*model.parameters(), *model.buffers()]
    tensors = {id(value): value for value in held if isinstance(value, torch.Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
