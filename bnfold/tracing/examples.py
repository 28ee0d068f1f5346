"""The example call a network is traced with: where its tensors come from, and which dimensions are left open."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from bnfold.data.feeds import draw
from bnfold.data.tensors import to_tensor
from bnfold.errors import UsageError
from bnfold.specs import DynamicDim, InputSpec
from bnfold.wording import first_line, listed

OpenDims = dict[str, dict[int, str]]

HOW = "Pass the shape the network was trained with, e.g. --input 1x3x224x224."


@dataclass(frozen=True)
class Example:
    """One call of a network.

    Attributes:
        signature: Of the network's forward.
        arguments: Its arguments by parameter: tensors, and containers of tensors.
    """

    signature: inspect.Signature
    arguments: Mapping[str, Any]

    def map(self, leaf: Callable[[str, Any], Any]) -> dict[str, Any]:
        """The arguments with every leaf replaced by `leaf(name, value)`; a tensor's name is that of its ONNX input."""
        return {
            key: pytree.tree_map_with_path(lambda path, value, key=key: leaf(_joined(key, path), value), argument)
            for key, argument in self.arguments.items()
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by the names of their ONNX inputs, in order."""
        found: dict[str, torch.Tensor] = {}
        self.map(lambda name, value: found.update({name: value}) if isinstance(value, torch.Tensor) else None)
        return found

    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as they are passed to `forward`."""
        bound = inspect.BoundArguments(self.signature, dict(self.arguments))
        return bound.args, bound.kwargs

    def described(self) -> str:
        """Every tensor's name, shape and dtype."""
        return ", ".join(
            f"{name} {'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"
            for name, tensor in self.tensors().items()
        )

    def stretched(self, dims: OpenDims) -> Example:
        """The same call with every open dimension of size 1 repeated to size 2, in tensors of its own.

        torch.export marks the tensors it is given; another export of them would still want the dimension open.
        """

        def stretch(name: str, value: Any) -> Any:
            value = value.clone() if name in dims else value
            for axis in dims.get(name, {}):
                if value.shape[axis] == 1:
                    value = torch.cat([value, value], dim=axis)
            return value

        return Example(self.signature, self.map(stretch))


def make_example(
    module: torch.nn.Module,
    inputs: Sequence[InputSpec],
    data: Mapping[str, NDArray[Any]] | NDArray[Any] | None,
    seed: int,
) -> Example:
    """The example call, from the data, else the shapes given, else what the network says about itself.

    Raises:
        UsageError: There is none, or it does not fit the network's parameters.
    """
    signature = _signature(module)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    own = getattr(module, "example_input_array", None)
    if data is not None and not isinstance(data, Mapping):
        args.append(_tensor(data))
    elif data is not None:
        kwargs |= {name: _tensor(array) for name, array in data.items()}
    rng = np.random.default_rng(seed)
    specs = [spec for spec in inputs if spec.name not in kwargs] if data is not None else list(inputs)
    if specs and not args:
        args += [_drawn(rng, spec, module) for spec in specs if spec.name is None]
        kwargs |= {spec.name: _drawn(rng, spec, module) for spec in specs if spec.name is not None}
    if args or kwargs:
        return _bind(signature, args, kwargs)
    if isinstance(own, Mapping):
        return _bind(signature, [], {key: _tensor(value) for key, value in own.items()})
    if own is not None:
        return _bind(signature, [_tensor(value) for value in (own if isinstance(own, (tuple, list)) else [own])], {})
    size = _input_size(module)
    if size is None:
        raise UsageError("the network does not say what its input looks like", HOW)
    return _bind(signature, [_drawn(rng, InputSpec(None, (1, *size)), module)], {})


def example_of(module: torch.nn.Module, inputs: Any) -> Example:
    """The call with given inputs: a tensor or array, a sequence of positional or a mapping of keyword arguments.

    Raises:
        UsageError: They do not fit the network's parameters.
    """
    if isinstance(inputs, Mapping):
        return _bind(_signature(module), [], {str(key): _tensor(value) for key, value in inputs.items()})
    args = inputs if isinstance(inputs, (tuple, list)) else [inputs]
    return _bind(_signature(module), [_tensor(value) for value in args], {})


def example_like(module: torch.nn.Module, feeds: Mapping[str, NDArray[Any]]) -> Example:
    """The call with arrays by the names another model has for them, which are this one's or in this one's order.

    Raises:
        UsageError: They do not fit the network's parameters.
    """
    named = set(feeds) <= set(_signature(module).parameters)
    return example_of(module, feeds if named else list(feeds.values()))


def open_dims(example: Example, dynamic: Sequence[DynamicDim]) -> OpenDims:
    """Which dimensions stay open: the first one of every input that shares the first input's batch, and those named.

    Raises:
        UsageError: A named one does not exist.
    """
    tensors = example.tensors()
    batch = next((tensor.shape[0] for tensor in tensors.values() if tensor.ndim), None)
    dims: OpenDims = {name: {0: "batch"} for name, tensor in tensors.items() if tensor.ndim and len(tensor) == batch}
    for dim in dynamic:
        if dim.name not in tensors:
            raise UsageError(
                f"--dynamic names {dim.name!r}, and the network's inputs are {listed(tensors)}",
                "Use one of those names.",
            )
        if dim.axis >= tensors[dim.name].ndim:
            raise UsageError(
                f"--dynamic names dimension {dim.axis} of {dim.name!r}, which has {tensors[dim.name].ndim}",
                "Dimensions are counted from 0.",
            )
        dims.setdefault(dim.name, {})[dim.axis] = dim.symbol
    return dims


def try_out(module: torch.nn.Module, example: Example) -> None:
    """Runs the network once, so that a wrong input is told apart from what torch cannot export.

    Raises:
        UsageError: The network does not take the example.
    """
    args, kwargs = example.call()
    try:
        with torch.no_grad(), redirect_stdout(sys.stderr):
            module(*args, **kwargs)
    except Exception as error:
        raise UsageError(f"the network does not take {example.described()}: {first_line(error)}", HOW) from error


def required_inputs(model: object) -> list[str]:
    """The parameters of a network's forward that have no default; none for anything but a module."""
    if not isinstance(model, torch.nn.Module):
        return []
    parameters = _signature(model).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY)]
    return [p.name for p in named if p.default is p.empty]


def _signature(module: torch.nn.Module) -> inspect.Signature:
    if not isinstance(module, torch.jit.ScriptModule):
        return inspect.signature(module.forward)
    names = [argument.name for argument in module.forward.schema.arguments[1:]]  # type: ignore[attr-defined]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def _bind(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Example:
    """Named arguments first, the others for the remaining parameters in order."""
    parameters = signature.parameters
    free = [name for name, p in parameters.items() if name not in kwargs and p.kind is p.POSITIONAL_OR_KEYWORD]
    try:
        if kwargs and len(args) <= len(free):
            bound = signature.bind(**dict(zip(free, args, strict=False)), **kwargs)
        else:
            bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(
            f"forward({', '.join(parameters)}) was given {len(args)} unnamed inputs and "
            f"{f'those named {listed(kwargs)}' if kwargs else 'no named ones'}: {first_line(error)}",
            "Pass one --input per parameter, in order or as NAME:SHAPE.",
        ) from error
    return Example(signature, bound.arguments)


def _drawn(rng: np.random.Generator, spec: InputSpec, module: torch.nn.Module) -> torch.Tensor:
    own = next((value.dtype for value in module.parameters() if value.is_floating_point()), torch.float32)
    dtype = own if spec.dtype is None else getattr(torch, spec.dtype)
    drawn_as = str(dtype).removeprefix("torch.") if dtype is not torch.bfloat16 else "float32"
    return torch.from_numpy(np.asarray(draw(rng, spec.shape, drawn_as))).to(dtype)


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return to_tensor(value)
    return pytree.tree_map(_tensor, value) if isinstance(value, (tuple, list, dict)) else value


def _input_size(module: torch.nn.Module) -> tuple[int, ...] | None:
    """The convention of timm: `pretrained_cfg` or `default_cfg` knows the input without its batch."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        size = config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
        if isinstance(size, (tuple, list)) and all(isinstance(dim, int) and dim > 0 for dim in size):
            return tuple(size)
    return None


def _joined(key: str, path: Sequence[Any]) -> str:
    """`xs`, 0 → `xs_0`: how torch.onnx names the inputs inside containers."""
    return "_".join([key, *(str(getattr(step, "idx", getattr(step, "key", step))) for step in path)])
