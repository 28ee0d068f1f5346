"""Preprocessing as part of the model: `(x·scale − mean) / std`, per channel, on a float input.

It is written as at most two operators before anything is folded,

    y = a·x + b        a = scale / std        b = −mean / std        (float64, rounded once)

so that the model with its preprocessing is what the folded one is compared with, and the solver treats it like any
other affine: `a` goes into a first convolution that pads with zeros, `b` only into one that does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnfold.data.feeds import InputDecl, model_inputs
from bnfold.errors import UsageError
from bnfold.planning.plan import Plan, Site
from bnfold.specs import ChannelValues, written
from bnfold.units.affine import Array, round_once

if TYPE_CHECKING:
    import onnx_ir

FLOATS = ("float32", "float64", "float16", "bfloat16")
FLAGS = ("mean", "std", "scale")
EVERYONE = "Give one value per channel, or a single one for all of them."


@dataclass(frozen=True)
class Preprocessing:
    """What the caller said: values by input name, None for the model's only float input.

    Attributes:
        mean: Subtracted; 0 where nothing is said.
        std: Divided by, last; 1 where nothing is said.
        scale: Multiplied by, first; 1 where nothing is said.
    """

    mean: ChannelValues
    std: ChannelValues
    scale: ChannelValues

    def __bool__(self) -> bool:
        return any((self.mean, self.std, self.scale))


@dataclass(frozen=True)
class Step:
    """The preprocessing of one input, in the model.

    Attributes:
        name: The input.
        factor: float64, broadcastable against the input: what it is multiplied by.
        shift: float64, broadcastable against the input: what is then added.
        operators: Names of the operators that do so.
    """

    name: str
    factor: Array
    shift: Array
    operators: tuple[str, ...]


def insert(model: onnx_ir.Model, said: Preprocessing) -> tuple[onnx_ir.Model, tuple[Step, ...]]:
    """Puts the preprocessing in front of a model; what came in is not changed.

    Args:
        model: A model that takes preprocessed inputs.
        said: What the preprocessing is.

    Returns:
        A model with the same inputs and outputs that takes raw ones, and what was put in.

    Raises:
        UsageError: The values do not fit the model's inputs.
    """
    given = _by_input(said, model_inputs(model))
    model = model.clone()
    steps = []
    for decl, values in given.items():
        _check_counts(values)
        shaped = {flag: _shaped(flag, array, decl) for flag, array in values.items()}
        factor = shaped.get("scale", np.array(1.0)) / shaped.get("std", np.array(1.0))
        shift = -shaped.get("mean", np.array(0.0)) / shaped.get("std", np.array(1.0))
        steps.append(_insert(model, decl, factor, shift))
    return model, tuple(steps)


def raw(steps: Sequence[Step], feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Inputs that the preprocessing takes to these feeds: what a caller would pass for them."""
    result = dict(feeds)
    for step in steps:
        array = result[step.name]
        result[step.name] = ((array.astype(np.float64) - step.shift) / step.factor).astype(array.dtype)
    return result


def fate(steps: Sequence[Step], plan: Plan) -> tuple[str, ...]:
    """What became of the preprocessing, one sentence per input."""
    sites = {site.name: site for site in plan.affines}
    return tuple(_sentence(step, [sites[name] for name in step.operators if name in sites]) for step in steps)


def _sentence(step: Step, sites: Sequence[Site]) -> str:
    kept = [site for site in sites if site.reason is not None]
    folded = [site for site in sites if site.reason is None]
    into = ", ".join(dict.fromkeys(name for site in folded for name in site.into if name not in step.operators))
    what = f"preprocessing of input {step.name!r}"
    where = f" folded into {into}" if into else " folded"
    if not kept:
        return f"{what}:{where}" if sites else f"{what}: changes nothing"
    why = f"{kept[0].reason.code}: {kept[0].reason.text}" if kept[0].reason is not None else ""
    if folded:
        return f"{what}: its {_part(folded[0])}{where}; its {_part(kept[0])} stays as one {kept[0].op} ({why})"
    return f"{what}: stays as {' and '.join(site.op for site in kept)} ({why})"


def _part(site: Site) -> str:
    return "scale" if site.op == "Mul" else "shift"


def _by_input(said: Preprocessing, inputs: Sequence[InputDecl]) -> dict[InputDecl, dict[str, Array]]:
    """The values by the input they are for, in the model's order."""
    found: dict[str, dict[str, Array]] = {}
    for flag in FLAGS:
        for name, values in getattr(said, flag).items():
            decl = _only_float(flag, inputs) if name is None else _named(flag, name, inputs)
            own = found.setdefault(decl.name, {})
            if flag in own:
                raise UsageError(f"--{flag} is given twice for input {decl.name!r}", "Give it once.")
            own[flag] = np.array(values, dtype=np.float64)
    return {decl: found[decl.name] for decl in inputs if decl.name in found}


def _only_float(flag: str, inputs: Sequence[InputDecl]) -> InputDecl:
    floats = [decl for decl in inputs if decl.dtype in FLOATS]
    if not floats:
        types = ", ".join(f"{decl.name!r} is {decl.dtype}" for decl in inputs) or "it has none"
        raise UsageError(f"--{flag} needs an input of floats, and the model has none: {types}", _CAST)
    if len(floats) > 1:
        names = ", ".join(repr(decl.name) for decl in floats)
        raise UsageError(
            f"--{flag} does not say which input it is for, and the model has {len(floats)} of floats: {names}",
            f"Name it, like --{flag} {floats[0].name}:0.5.",
        )
    return floats[0]


_CAST = "Preprocessing is arithmetic on floats: export the model with a float input, and cast the images before it."


def _named(flag: str, name: str, inputs: Sequence[InputDecl]) -> InputDecl:
    decl = next((decl for decl in inputs if decl.name == name), None)
    if decl is None:
        names = ", ".join(decl.name for decl in inputs) or "none"
        raise UsageError(f"--{flag} names {name!r}, and the model's inputs are {names}", "Use one of those names.")
    if decl.dtype not in FLOATS:
        raise UsageError(f"--{flag} names {name!r}, which is {decl.dtype}", _CAST)
    return decl


def _check_counts(values: Mapping[str, Array]) -> None:
    lists = [(flag, len(array)) for flag, array in values.items() if len(array) > 1]
    for flag, count in lists[1:]:
        if count != lists[0][1]:
            raise UsageError(f"--{lists[0][0]} has {lists[0][1]} values, and --{flag} has {count}", EVERYONE)


def _shaped(flag: str, values: Array, decl: InputDecl) -> Array:
    """Values along the channel axis: axis 1, or the last one where only that has as many channels."""
    rank = len(decl.shape)
    if len(values) == 1:
        return values.reshape(())
    if rank >= 2 and decl.shape[1] == len(values):
        return values.reshape(-1, *(1,) * (rank - 2))
    if rank >= 3 and decl.shape[1] is not None and decl.shape[-1] == len(values):
        return values
    raise UsageError(
        f"--{flag} has {len(values)} values, and input {decl.name!r} ({written(decl.shape)}) does not have as many "
        "channels, in axis 1 or in the last one",
        EVERYONE,
    )


def _insert(model: onnx_ir.Model, decl: InputDecl, factor: Array, shift: Array) -> Step:
    """Writes the operators behind an input, whose readers then read their result."""
    import onnx_ir as ir

    graph = model.graph
    x = next(value for value in graph.inputs if value.name == decl.name)
    assert x.dtype is not None
    readers = list(x.uses())
    value, operators, first = x, [], next(iter(graph), None)
    stored = []
    for op_type, exact, neutral in (("Mul", factor, 1.0), ("Add", shift, 0.0)):
        array = round_once(np.asarray(exact, dtype=np.float64), x.dtype.numpy())
        stored.append(array.astype(np.float64))
        _check_range(array, decl, zero_allowed=op_type == "Add")
        if np.all(exact == neutral):
            continue
        name = _fresh(model, f"{decl.name}_{'scaled' if op_type == 'Mul' else 'normalised'}")
        tensor = ir.Tensor(np.asarray(array, order="C"), dtype=x.dtype, name=f"{name}_constant")
        constant = ir.Value(
            name=tensor.name, type=ir.TensorType(x.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        graph.register_initializer(constant)
        node = ir.Node("", op_type, [value, constant], num_outputs=1, name=name)
        if first is None:
            graph.append(node)
        else:
            graph.insert_before(first, node)
        value = node.outputs[0]
        value.name, value.type, value.shape = name, x.type, x.shape
        operators.append(name)
    for reader in readers:
        reader.node.replace_input_with(reader.idx, value)
    return Step(decl.name, stored[0], stored[1], tuple(operators))


def _check_range(array: NDArray[Any], decl: InputDecl, *, zero_allowed: bool) -> None:
    wide = array.astype(np.float64)
    if not np.isfinite(wide).all() or not (zero_allowed or wide.all()):
        raise UsageError(
            f"--mean, --std and --scale make a factor or a shift that {decl.dtype}, the type of input {decl.name!r}, "
            "cannot hold",
            "Use numbers nearer to 1, or export the model in float32.",
        )


def _fresh(model: onnx_ir.Model, wanted: str) -> str:
    """A name that no value and no node has."""
    import onnx_ir as ir

    values = [*model.graph.inputs]
    taken: set[str | None] = set()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        taken.add(node.name)
        values += [value for value in (*node.inputs, *node.outputs) if value is not None]
    for graph in model.graphs():
        values += [*graph.inputs, *graph.initializers.values()]
    taken |= {value.name for value in values}
    name, n = wanted, 2
    while name in taken or f"{name}_constant" in taken:
        name, n = f"{wanted}_{n}", n + 1
    return name
