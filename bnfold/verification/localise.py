"""Where in a folded model the error comes from: every value with a counterpart in the model before, worst first.

Values go together that have the same name. A BatchNorm whose result is gone goes with the value it was applied to,
which a fold leaves in its place, or else with the result of the operator that reads it (a merged sum). What became of
a value:

    same        both models agree on it in float64 to `compare.DRIFT` (1e-5 in float32): one meaning, in one unit
    unit        they agree after a scale and a shift per channel: the fold measures it in another unit
    differs     neither: not the same function up to here, or one that magnifies the rounding of weights
    unknown     not the same, and too few elements per channel to tell the last two apart

    accumulated   max|float32 after − float64 before| / scale, where it is the same
    before        the same of the model before
    local         max|float32 after − float64 of its operator alone, on the float32 operands| / scale

The accumulated error is what has come together up to a value; the local one is what its own operator rounds. `gap`
is what separates both models in float64: where a value is the same, what the rounding of the new weights makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import UsageError
from bnfold.running.runners import OrtRunner, as_ir, runnable
from bnfold.verification.compare import DRIFT

FEWEST = 4  # elements per channel, so that not every pair of tensors is a scale and a shift apart
ORDER = ("differs", "same", "unknown", "unit")

Array = NDArray[Any]


@dataclass(frozen=True)
class SiteError:
    """One value that both models compute.

    Attributes:
        site: The BatchNorm of the model before that it stands for, by its own name; empty where it is none.
        node: The operator of the model after that computes it.
        op: Its type.
        value: The value's name.
        state: `"same"`, `"unit"`, `"differs"` or `"unknown"`, as above.
        gap: Distance of the two models in float64, as a part of the scale.
        accumulated: The error so far; None unless the value is the same.
        before: That of the model before; None as well.
        local: The operator's own error; None for control flow.
    """

    site: str
    node: str
    op: str
    value: str
    state: str
    gap: float
    accumulated: float | None
    before: float | None
    local: float | None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `--json`; a number that is not finite is null."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def localise(before: object, after: object, feeds: Mapping[str, Array]) -> tuple[SiteError, ...]:
    """Errors of every value that survives a fold under its name.

    Args:
        before: The unfolded ONNX model: an `onnx_ir.Model`, ModelProto or path.
        after: The folded one.
        feeds: Inputs of both by name.

    Returns:
        Values that differ first, the earliest of them on top, since it is the nearest to the cause; then those that are
        the same, the largest accumulated error on top; then the others.

    Raises:
        UnsupportedError: Either is no ONNX model, or cannot be run here.
        UsageError: No value has a name in both.
    """
    from bnfold.float64.evaluator import Evaluator

    first, second = Evaluator(before, "the model before"), Evaluator(after, "the model after")
    pairs = _counterparts(first.graph, {value.name for node in second.graph for value in node.outputs})
    wanted = {name for found in pairs.values() for name, _ in found}
    meant: dict[str, Array] = {}

    def keep(node: Any, results: tuple[Any, ...]) -> None:
        meant.update(item for item in _arrays(node, results) if item[0] in wanted)

    first.run(feeds, keep)
    earlier = _float_values(before, feeds, "the model before")
    single = _float_values(after, feeds, "the model after")
    exact: dict[Any, Any] = {}
    rows: list[SiteError] = []

    def compare(node: Any, results: tuple[Any, ...]) -> None:
        exact.update(zip(node.outputs, results, strict=False))
        for name, array in _arrays(node, results):
            for origin, site in pairs.get(name, ()):
                want = meant.get(origin)
                if want is None or name not in single or origin not in earlier or want.shape != array.shape:
                    continue
                state, gap = _relation(want, array, _agreement(single[name]))
                local = None if _has_body(node) else _local(second, node, name, single, exact, feeds)
                after_error = _apart(want, single[name]) if state == "same" else None
                before_error = _apart(want, earlier[origin]) if state == "same" else None
                row = SiteError(site, _label(node), node.op_type, name, state, gap, after_error, before_error, local)
                rows.append(row)

    second.run(feeds, compare)
    if not rows:
        raise UsageError(
            "no value has the same name in both models, so that nothing can be compared inside them",
            "Compare the outputs alone: leave out --per-site.",
        )
    return tuple(sorted(rows, key=lambda row: (ORDER.index(row.state), -(row.accumulated or 0.0))))


def _counterparts(graph: Any, surviving: set[str | None]) -> dict[str, list[tuple[str, str]]]:
    """By value of the model after: the values of the model before that it stands for, and the BatchNorm of each."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    produced = [value for node in graph for value in node.outputs if value.name]
    for value in produced:
        node = value.producer()
        is_norm = node.op_type == "BatchNormalization" and value is node.outputs[0]
        if value.name in surviving:
            pairs.setdefault(value.name, []).append((value.name, _label(node) if is_norm else ""))
        elif is_norm:
            here, origin = _stand_in(value, surviving)
            if here:
                pairs.setdefault(here, []).append((origin, _label(node)))
    # A value that stands for a BatchNorm has its unit; its own row would only say that it changed.
    return {name: [p for p in found if p[1]] or found for name, found in pairs.items()}


def _stand_in(value: Any, surviving: set[str | None]) -> tuple[str, str]:
    """The value after that a vanished BatchNorm's result lives on in, and what that is in the model before."""
    below = value
    while below is not None and below.producer() is not None and below.producer().op_type == "BatchNormalization":
        below = below.producer().inputs[0]
        if below is not None and below.producer() is not None and below.name in surviving:
            return below.name, value.name
    readers = [node for node, _ in value.uses()]
    if len(readers) == 1 and readers[0].outputs[0].name in surviving:
        return readers[0].outputs[0].name, readers[0].outputs[0].name
    return "", ""


def _label(node: Any) -> str:
    return str(node.name or node.outputs[0].name)


def _has_body(node: Any) -> bool:
    return any(attribute.type.name == "GRAPH" for attribute in node.attributes.values())


def _arrays(node: Any, results: tuple[Any, ...]) -> Iterator[tuple[str, Array]]:
    """The results of a node that are arrays, by name."""
    for value, result in zip(node.outputs, results, strict=False):
        if value.name and result is not None and not isinstance(result, list):
            yield value.name, np.asarray(result)


def _float_values(model: object, feeds: Mapping[str, Array], label: str) -> dict[str, Array]:
    """Every float that a model computes in its main graph, as onnxruntime computes it without optimisations."""
    from onnx_ir.passes.common import ShapeInferencePass

    opened = as_ir(model).clone()
    if any(value.dtype is None for node in opened.graph for value in node.outputs):
        ShapeInferencePass()(opened)  # in place: an output must have a type
    known = {value.name for value in opened.graph.outputs}
    for node in opened.graph:
        for value in node.outputs:
            if value.name and value.name not in known and value.dtype is not None and value.dtype.is_floating_point():
                opened.graph.outputs.append(value)
                known.add(value.name)
    with runnable(opened) as file:
        return OrtRunner(file, optimize=False, label=label).run(feeds)


def _local(
    run: Any, node: Any, name: str, single: Mapping[str, Array], exact: Mapping[Any, Any], feeds: Mapping[str, Array]
) -> float | None:
    """The error of one operator alone, on the operands that it really had."""
    from bnfold.float64.call import widened

    operands: list[Any] = []
    for value in node.inputs:
        if value is None:
            operands.append(None)
        elif value.name in single or value.name in feeds:
            operands.append(widened(np.asarray(single.get(value.name, feeds.get(value.name)))))
        else:
            operands.append(exact[value] if value in exact else run.constant(value))
    results = run.apply(node, operands)
    return next((_apart(array, single[key]) for key, array in _arrays(node, results) if key == name), None)


def _apart(exact: Array, got: Array) -> float:
    """The largest distance as a part of the scale; infinite where only one of them is finite."""
    finite = np.isfinite(exact)
    if (finite != np.isfinite(got)).any():
        return float("inf")
    distance = np.abs(got.astype(np.float64) - exact, where=finite, out=np.zeros(exact.shape))
    scale = np.max(np.abs(exact), where=finite, initial=0.0)
    return float(np.max(distance, initial=0.0) / (scale or 1.0))


def _agreement(single: Array) -> float:
    """How near is the same: the weights of a fold are rounded, so that its float64 run differs as well."""
    return DRIFT[single.dtype.name].warn


def _relation(before: Array, after: Array, agree: float) -> tuple[str, float]:
    """What two float64 values have to do with each other, and how far apart they are."""
    gap = _apart(before, after)
    if gap <= agree:
        return "same", gap
    if not np.isfinite(before).all() or not np.isfinite(after).all():
        return "differs", gap
    axes = {axis for axis in (1, before.ndim - 1) if 0 < axis < before.ndim and before.shape[axis] > 1}
    enough = [axis for axis in axes if before.size >= FEWEST * before.shape[axis]]
    if any(_affine(before, after, axis, agree) for axis in enough):
        return "unit", gap
    return ("differs" if len(enough) == len(axes) else "unknown"), gap


def _affine(before: Array, after: Array, axis: int, agree: float) -> bool:
    """Whether `before = scale·after + shift` along one axis, for the best scale and shift of each channel."""
    rows, others = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (before, after))
    x = others - others.mean(1, keepdims=True)
    y = rows - rows.mean(1, keepdims=True)
    power = (x * x).sum(1, keepdims=True)
    scale = np.divide((x * y).sum(1, keepdims=True), power, where=power > 0, out=np.zeros_like(power))
    return bool(np.abs(y - scale * x).max(initial=0.0) <= agree * max(np.abs(before).max(initial=0.0), 1e-300))
