"""Laws of operators that combine tensors: selections, products, mixtures of positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.certificate.bounds import Bound
from bnfold.certificate.forms import Mismatch, Unit
from bnfold.certificate.pair import Pair, Units, positive_scale, rigid, same_constant, wide
from bnfold.certificate.sides import rank_of
from bnfold.frontends.context import attr


def select(pair: Pair, units: Units) -> list[Unit]:
    """Max, Min, Where: an element of one of the operands, all in one unit."""
    chosen = [(i, unit) for i, unit in enumerate(units) if unit is not None]
    if pair.before.op_type == "Where":
        pair.same(units[0])
        chosen = chosen[1:] if units[0] is not None else chosen
    if not chosen:
        return rigid(pair, units)
    rank = rank_of(pair.before.outputs[0])
    low, high, bottom, top = (np.full((1,) * rank, v) for v in (-np.inf, np.inf, -np.inf, np.inf))
    constants = []
    for _, unit in chosen:
        scale, shift = (wide(b, rank) for b in (unit.scale, unit.shift))
        if not shift.known.all():
            raise Mismatch("a channel that it reads is lost after", differs=True)
        fixed = pair.fixed(unit.value)
        free = np.zeros((1,) * rank, dtype=bool)
        if fixed is not None:
            known = wide(fixed, rank)
            free = np.isfinite(known.mid)
            constants.append((scale * Bound.filled(0.0, rank).where(free, known) + shift, known))
        low = np.maximum(low, np.where(free, -np.inf, scale.mid - scale.err))
        high = np.minimum(high, np.where(free, np.inf, scale.mid + scale.err))
        bottom = np.maximum(bottom, np.where(free, -np.inf, shift.mid - shift.err))
        top = np.minimum(top, np.where(free, np.inf, shift.mid + shift.err))
    if (low > high).any() or (bottom > top).any():
        raise Mismatch("its operands are measured in different units", differs=True)
    low, high = np.where(np.isfinite(low), low, 1.0), np.where(np.isfinite(high), high, 1.0)
    bottom, top = np.where(np.isfinite(bottom), bottom, 0.0), np.where(np.isfinite(top), top, 0.0)
    result = Unit(pair.y(), Bound.between(low, high), Bound.between(bottom, top))
    if pair.before.op_type != "Where":
        positive_scale(result)
    for constant, known in constants:
        here = np.isfinite(known.mid)
        left = constant - (Bound.filled(0.0, rank).where(here, known) * result.scale + result.shift)
        if (here & ~left.holds(0.0)).any():
            raise Mismatch("a constant channel is in another unit than the others", differs=True)
    start = 1 if pair.before.op_type == "Where" else 0
    for value, other in zip(pair.before.inputs[start:], pair.after.inputs[start:], strict=True):
        if pair.old.is_feature(value):
            continue
        old, new = pair.old.bound(value), pair.new.bound(other)
        if old is None or new is None:  # no floats
            same_constant(pair, value, other)
            continue
        left = old - (new * result.scale + result.shift)
        if not left.holds(0.0).all():
            raise Mismatch("a constant operand is in another unit than the others", differs=True)
    return [result]


def gate(pair: Pair, units: Units) -> list[Unit]:
    """A product or quotient of two features, each with its own zero."""
    left, right = units
    if left is None or right is None:
        return rigid(pair, units)
    rank = rank_of(pair.before.outputs[0])
    scales = []
    for unit in (left, right):
        free = pair.unshifted(unit)
        scales.append(free.scale.moved(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape)))
    scale = scales[0] * (scales[1].inverse() if pair.before.op_type == "Div" else scales[1])
    if not np.isfinite(scale.err).all():
        raise Mismatch("it divides by a channel whose scale is not known")
    return [pair.result(scale, Bound.filled(0.0, rank))]


def mix(pair: Pair, units: Units) -> list[Unit]:
    """A matrix product of two features."""
    left, right = units
    if (left is None) != (right is None):
        return mixed_by_constant(pair, units)
    if left is None or right is None:
        return rigid(pair, units)
    a, b = rank_of(pair.x(0)), rank_of(pair.x(1))
    if min(a, b) < 2:
        return rigid(pair, units)
    rank = rank_of(pair.before.outputs[0])
    left, right = pair.unshifted(pair.even(left, [a - 1])), pair.even(right, [b - 2])
    sums_to_one = left.is_plain and _is_softmax(pair.x(0))
    if not sums_to_one:
        right = pair.unshifted(right)
    scale, other, shift = (
        bound.moved(lambda array: array.reshape((1,) * (rank - array.ndim) + array.shape))
        for bound in (left.scale, right.scale, right.shift)
    )
    return [pair.result(scale * other, shift)]


def mixed_by_constant(pair: Pair, units: Units) -> list[Unit]:
    """A matrix product with the same constant matrix along an axis on which the unit does not vary."""
    at = 0 if units[0] is not None else 1
    unit, weight = units[at], pair.old.array(pair.before.inputs[1 - at])
    rank = rank_of(pair.x(at))
    if unit is None or weight is None or weight.ndim != 2 or rank < 2:
        return rigid(pair, units)
    axis = rank - 1 if at == 0 else rank - 2
    unit = pair.even(unit, [axis])
    wide = weight.astype(np.float64) if at == 0 else weight.astype(np.float64).T
    sums = wide.sum(axis=0).reshape([-1 if i == axis else 1 for i in range(rank)])
    size = np.abs(wide).sum(axis=0).reshape(sums.shape)
    shift = unit.shift
    return [pair.result(unit.scale, Bound(shift.mid * sums, (shift.err + 1e-14 * np.abs(shift.mid)) * size))]


def _is_softmax(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and node.op_type in ("Identity", "Dropout") and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    if node is None or node.op_type != "Softmax" or value.shape is None:
        return False
    axis = int(attr(node, "axis", -1 if (node.version or 13) >= 13 else 1))
    return axis % len(value.shape) == len(value.shape) - 1
