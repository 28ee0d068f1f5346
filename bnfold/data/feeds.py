"""What goes into a model: arrays for every input it declares, drawn where none are given.

A dimension the model leaves open takes the batch size (first dimension), or what the user's shape says, or the size of
another dimension with the same name, here or in another input. Anything else is asked for, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnfold.data.arrays import Array, draw, load_input_data, numpy_dtype
from bnfold.errors import UnsupportedError, UsageError
from bnfold.specs import DynamicDim, InputSpec, parse_dynamic, parse_input, written

if TYPE_CHECKING:
    import onnx_ir

__all__ = [
    "DynamicDim",
    "InputDecl",
    "InputSpec",
    "check_given",
    "draw",
    "load_input_data",
    "make_feeds",
    "model_inputs",
    "numpy_dtype",
    "parse_dynamic",
    "parse_input",
]


@dataclass(frozen=True)
class InputDecl:
    """An input as the model declares it.

    Attributes:
        name: Its name.
        shape: Fixed dimensions; None where the dimension is open.
        dtype: A NumPy dtype name.
        symbols: The names of the open dimensions; None where fixed or nameless.
        hints: Sizes the model was made with, for open dimensions nobody says a size for; may be left out.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    symbols: tuple[str | None, ...]
    hints: tuple[int | None, ...] = ()


def model_inputs(model: onnx_ir.Model) -> tuple[InputDecl, ...]:
    """The inputs that have to be fed, in order (an overridable initializer does not).

    Raises:
        UnsupportedError: An input is not a numeric tensor of known rank.
    """
    return tuple(_declaration(value) for value in model.graph.inputs if value.name not in model.graph.initializers)


def make_feeds(
    model: onnx_ir.Model | Sequence[InputDecl],
    *,
    batch: int,
    seed: int,
    specs: Sequence[InputSpec] = (),
    data: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Arrays for every input of a model: the data given, the rest drawn.

    Args:
        model: The model to feed, or its inputs.
        batch: Size of the first dimension where the model leaves it open.
        seed: Of the drawn arrays: normal floats, integers 0 to 9, booleans.
        specs: Shapes for the dimensions the model leaves open.
        data: Arrays to use as they are. Rows beyond a batch size that the model fixes are left out.

    Raises:
        UsageError: The specs or the data do not fit the model, or do not say enough.
    """
    declared = model if isinstance(model, Sequence) else model_inputs(model)
    given = _by_name(specs, [decl.name for decl in declared])
    data = data or {}
    _known(data, [decl.name for decl in declared], "--input-data")
    fitted = {decl.name: _fit(decl, data[decl.name]) for decl in declared if decl.name in data}
    open_rows = [len(fitted[decl.name]) for decl in declared if decl.name in fitted and decl.shape[:1] == (None,)]
    batch = open_rows[0] if open_rows else batch
    sizes = _symbol_sizes(declared, batch, given, fitted)
    rng = np.random.default_rng(seed)
    feeds = {}
    for decl in declared:
        if decl.name in fitted:
            feeds[decl.name] = fitted[decl.name]
            continue
        spec = given.get(decl.name)
        feeds[decl.name] = draw(rng, _shape_of(decl, spec, sizes, batch), _dtype_of(decl, spec))
    return feeds


def check_given(model: onnx_ir.Model, specs: Sequence[InputSpec], data: Mapping[str, Array] | None = None) -> None:
    """Whether what a user says about the inputs agrees with the model, where nothing is to be run.

    Raises:
        UsageError: It does not.
        UnsupportedError: An input is not a numeric tensor of known rank.
    """
    declared = model_inputs(model)
    given = _by_name(specs, [decl.name for decl in declared])
    _known(data or {}, [decl.name for decl in declared], "--input-data")
    for decl in declared:
        if decl.name in given:
            _check(decl, given[decl.name].shape, "--input")
            _dtype_of(decl, given[decl.name])
        if data and decl.name in data:
            _fit(decl, data[decl.name])


def _declaration(value: onnx_ir.Value) -> InputDecl:
    advice = "Give the input a tensor type of known rank in the ONNX file."
    if value.name is None or value.shape is None or value.dtype is None:
        raise UnsupportedError(f"input {value.name!r} has no declared tensor type and shape", advice)
    try:
        dtype = value.dtype.numpy().name
    except TypeError as error:
        raise UnsupportedError(f"input {value.name!r} has element type {value.dtype.name}", advice) from error
    if numpy_dtype(dtype).kind in "OSU":
        raise UnsupportedError(f"input {value.name!r} is a tensor of strings", "Only numbers and booleans are fed.")
    dims = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    symbols = tuple(None if isinstance(dim, int) or dim.value is None else str(dim.value) for dim in value.shape)
    return InputDecl(value.name, dims, dtype, symbols)


def _by_name(specs: Iterable[InputSpec], names: Sequence[str]) -> dict[str, InputSpec]:
    """The specs by input name: the named ones first, the others for the remaining inputs in order."""
    specs = list(specs)
    given: dict[str, InputSpec] = {}
    for spec in specs:
        if spec.name is not None and spec.name in given:
            raise UsageError(f"--input names {spec.name!r} twice", "Give each input one shape.")
        if spec.name is not None:
            given[spec.name] = spec
    _known(given, names, "--input")
    free = [name for name in names if name not in given]
    nameless = [spec for spec in specs if spec.name is None]
    if len(nameless) > len(free):
        raise UsageError(
            f"{len(specs)} --input were given, and the model has {len(names)}: {', '.join(names) or 'none'}",
            "Give at most one shape per input.",
        )
    return given | dict(zip(free, nameless, strict=False))


def _known(given: Iterable[str], names: Sequence[str], flag: str) -> None:
    for name in given:
        if name not in names:
            raise UsageError(
                f"{flag} names {name!r}, and the model's inputs are {', '.join(names) or 'none'}",
                "Use one of those names.",
            )


def _fit(decl: InputDecl, array: Array) -> Array:
    """The data in the declared dtype, cut to a batch size the model fixes."""
    dtype = numpy_dtype(decl.dtype)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise UsageError(
            f"input {decl.name!r} is {decl.dtype}, and the data given is {array.dtype}",
            f"Convert the data to {decl.dtype}.",
        )
    if array.ndim == len(decl.shape) and array.ndim and decl.shape[0] is not None and len(array) > decl.shape[0]:
        array = array[: decl.shape[0]]
    _check(decl, array.shape, "the data given")
    return array.astype(dtype, copy=False)


def _symbol_sizes(
    declared: Sequence[InputDecl], batch: int, specs: Mapping[str, InputSpec], data: Mapping[str, Array]
) -> dict[str, int]:
    """The size of every named open dimension.

    Decided by the data, then by the batch for the name the first open input starts with, then by the specs (which do
    not decide a batch), then by the batch for every other name an input starts with.
    """
    sizes: dict[str, int] = {}
    for decl in declared:
        if decl.name in data:
            _decide(sizes, decl.symbols, data[decl.name].shape)
    leading = [decl.symbols[:1] for decl in declared if decl.name not in data]
    for symbols in leading[:1]:
        _decide(sizes, symbols, (batch,) * len(symbols))
    for decl in declared:
        if decl.name in specs and len(specs[decl.name].shape) == len(decl.shape):
            _decide(sizes, decl.symbols[1:], specs[decl.name].shape[1:])
    for symbols in leading:
        _decide(sizes, symbols, (batch,) * len(symbols))
    return sizes


def _decide(sizes: dict[str, int], symbols: Sequence[str | None], shape: Sequence[int]) -> None:
    for symbol, size in zip(symbols, shape, strict=True):
        if symbol:
            sizes.setdefault(symbol, size)


def _shape_of(decl: InputDecl, spec: InputSpec | None, sizes: Mapping[str, int], batch: int) -> tuple[int, ...]:
    if spec is not None:
        _check(decl, spec.shape, "--input")
    shape: list[int] = []
    for axis, (size, symbol) in enumerate(zip(decl.shape, decl.symbols, strict=True)):
        known = size if size is not None else sizes.get(symbol or "", batch if axis == 0 else None)
        if known is None and spec is not None:
            known = spec.shape[axis]
        if known is None and decl.hints:
            known = decl.hints[axis]
        if known is None:
            example = "x".join(str(dim or "N") for dim in (decl.shape[0] or 1, *decl.shape[1:]))
            raise UsageError(
                f"dimension {axis} of input {decl.name!r} ({written(decl.shape)}) is open",
                f"Pass its shape, e.g. --input {decl.name}:{example} with numbers for N.",
            )
        shape.append(known)
    return tuple(shape)


def _dtype_of(decl: InputDecl, spec: InputSpec | None) -> str:
    if spec is not None and spec.dtype not in (None, decl.dtype):
        raise UsageError(
            f"--input says {decl.name!r} is {spec.dtype}, and the model declares {decl.dtype}",
            "Leave the dtype out, or use the model's.",
        )
    return decl.dtype


def _check(decl: InputDecl, shape: Sequence[int], source: str) -> None:
    fits = len(shape) == len(decl.shape) and all(
        want is None or want == got for want, got in zip(decl.shape, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"input {decl.name!r} is {written(decl.shape)}, and {source} has {written(shape)}",
            "Pass a shape that agrees with the model's.",
        )
