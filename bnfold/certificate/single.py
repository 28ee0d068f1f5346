"""Laws of operators of one tensor: what it demands of the unit, and which unit the result has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from bnfold.certificate import moves
from bnfold.certificate.bounds import UNKNOWN, Array, Bound
from bnfold.certificate.forms import Mismatch, Unit, level, plain
from bnfold.certificate.linear import zero_pads
from bnfold.certificate.pair import Law, Pair, Units, only, positive_scale, rigid
from bnfold.certificate.sides import rank_of, sizes_of
from bnfold.frontends.context import attr, ints


def homogeneous(pair: Pair, units: Units) -> list[Unit]:
    """`f(a·x) = a·f(x)` for a > 0. Of a constant channel it makes a constant."""
    unit = only(units)
    for other in units[1:]:
        pair.same(other)
    positive_scale(unit)
    constant = (unit.scale.mid == 0) & (unit.scale.err == 0) & unit.shift.known
    shift, scale = unit.shift, unit.scale
    wrong = ~unit.shift.holds(0.0) & ~constant & unit.shift.known
    if wrong.any() and unit.dead is not None:
        constant = constant | (wrong & unit.dead.mask)
        wrong = wrong & ~constant
        shift = shift.where(constant, unit.dead.constant)
        scale = scale.where(constant, Bound.filled(0.0, scale.rank))
    if wrong.any():
        pair.unshifted(unit)
    through = _through(pair, shift.mid) if constant.any() else shift.mid
    doubt = np.where(constant & (through != 0), shift.err, 0.0)
    settled = Bound(np.where(constant, through, 0.0), np.where(unit.shift.known, doubt, UNKNOWN))
    return [pair.result(scale, settled)]


def _through(pair: Pair, x: Array) -> Array:
    """The operator, of numbers."""
    kind = pair.before.op_type
    if kind == "Abs":
        return np.abs(x)
    if kind == "LeakyRelu":
        return np.where(x < 0, float(attr(pair.before, "alpha", 0.01)) * x, x)
    if kind == "PRelu":
        slope = pair.old.array(pair.before.inputs[1])
        if slope is None:
            raise Mismatch("its slope is computed")
        wide = slope.astype(np.float64)
        return np.where(x < 0, wide.reshape((1,) * (x.ndim - wide.ndim) + wide.shape) * x, x)
    return np.maximum(x, 0.0)


def clip(pair: Pair, units: Units) -> list[Unit]:
    """Clip to [0, ∞) is ReLU; of anything else it needs the same value."""
    bounds = [pair.old.array(v) for v in [*pair.before.inputs[1:3], None, None][:2]]
    low = float(attr(pair.before, "min", np.nan)) if bounds[0] is None else float(bounds[0].reshape(-1)[0])
    high = float(attr(pair.before, "max", np.inf)) if bounds[1] is None else float(bounds[1].reshape(-1)[0])
    computed = any(pair.old.is_feature(v) for v in pair.before.inputs[1:])
    if low == 0 and high >= np.finfo(np.float32).max and not computed:
        return homogeneous(pair, units)
    return rigid(pair, units)


def shape_only(pair: Pair, units: Units) -> list[Unit]:
    """Shape, Size: values do not matter."""
    return pair.plain()


def average(axes: Callable[[Pair], Sequence[int]], *, positive: bool = False, zeros: Callable[[ir.Node], bool]) -> Law:
    """Along some axes the operator averages, or passes one element on; with `zeros`, of zeros that it adds itself."""

    def law(pair: Pair, units: Units) -> list[Unit]:
        unit = pair.even(only(units), axes(pair))
        for other in units[1:]:
            pair.same(other)
        if positive:
            positive_scale(unit)
        if zeros(pair.before):
            unit = pair.unshifted(unit)
        places = [v for v in pair.before.outputs[1:] if v.uses() or v.is_graph_output()]
        if places and (unit.scale.mid == 0).any():
            raise Mismatch("it tells where the largest stands in a channel that is constant")
        results = [pair.result(unit.scale, unit.shift)]
        return results + [plain(v, 0 if v.shape is None else len(v.shape)) for v in pair.after.outputs[1:]]

    return law


def averaged(pair: Pair, unit: Unit, axes: Sequence[int]) -> Unit:
    """The unit of a mean over axes: the scale may not vary along them, the shift is averaged."""
    unit = level(unit, pair.fixed(unit.value), axes)
    shift = unit.shift
    for axis in axes:
        if shift.mid.shape[axis] != 1:
            wide = (np.broadcast_to(array, shift.mid.shape) for array in (shift.mid, shift.err))
            shift = Bound(*(array.mean(axis=axis, keepdims=True) for array in wide))
    return Unit(unit.value, moves.even(unit.scale, axes), shift)


def mean(pair: Pair, units: Units) -> list[Unit]:
    """GlobalAveragePool."""
    unit = averaged(pair, only(units), space(pair))
    return [pair.result(unit.scale, unit.shift)]


def space(pair: Pair) -> Sequence[int]:
    """The axes of space."""
    return range(2, rank_of(pair.x()))


def never(_: ir.Node) -> bool:
    """No zeros are added."""
    return False


def counts_zeros(node: ir.Node) -> bool:
    """Whether an average counts padded zeros."""
    pads = any(ints(node, "pads", ())) or attr(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return bool(attr(node, "count_include_pad", 0)) and (pads or bool(attr(node, "ceil_mode", 0)))


def outside_is_zero(node: ir.Node) -> bool:
    """Whether GridSample reads zeros outside."""
    return bool(attr(node, "padding_mode", "zeros") == "zeros")


def roi(pair: Pair, units: Units) -> list[Unit]:
    """RoiAlign, MaxRoiPool: places outside count as zeros."""
    unit = pair.unshifted(pair.even(only(units), (0, 2, 3)))
    for other in units[1:]:
        pair.same(other)
    positive_scale(unit)
    return [pair.result(unit.scale, unit.shift)]


def reduce(pair: Pair, units: Units) -> list[Unit]:
    """ReduceMean, ReduceMax, ReduceMin, ReduceSum."""
    node, unit, rank = pair.before, only(units), rank_of(pair.x())
    axes = ints(node, "axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = pair.old.array(node.inputs[1])
        if array is None:
            return rigid(pair, units)
        axes = tuple(int(a) for a in array.reshape(-1))
    if not axes and attr(node, "noop_with_empty_axes", 0):
        return [pair.result(unit.scale, unit.shift)]
    gone = {axis % rank for axis in axes} or set(range(rank))
    unit = averaged(pair, unit, sorted(gone)) if node.op_type == "ReduceMean" else pair.even(unit, sorted(gone))
    if node.op_type == "ReduceSum":
        unit = pair.unshifted(unit)
    if node.op_type in ("ReduceMax", "ReduceMin"):
        positive_scale(unit)
    if attr(node, "keepdims", 1):
        return [pair.result(unit.scale, unit.shift)]
    kept = [axis for axis in range(rank) if axis not in gone]
    return [unit.moved(pair.y(), lambda bound: bound.moved(lambda a: a.reshape([a.shape[axis] for axis in kept])))]


def resize(pair: Pair, units: Units) -> list[Unit]:
    """Interpolation: weights that sum to 1, unless it extrapolates."""
    before, after = sizes_of(pair.x()), sizes_of(pair.before.outputs[0])
    unit = only(units)
    for other in units[1:]:
        pair.same(other)
    cropped = attr(pair.before, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if cropped:
        return rigid(pair, units)
    if len(before) > 2 and isinstance(before[1], int) and before[1] == after[1] and _keeps_channels(pair):
        axes: Sequence[int] = [0, *range(2, len(before))]
    else:
        axes = range(len(before))
    unit = pair.even(unit, axes)
    return [pair.result(unit.scale, unit.shift)]


def _keeps_channels(pair: Pair) -> bool:
    """Whether a Resize leaves the second axis alone: a scale other than 1 may leave its size as it is."""
    node, rank = pair.before, rank_of(pair.x())
    at = 1 if node.op_type == "Upsample" or (node.version or 11) < 11 else 2
    given = node.inputs[at] if len(node.inputs) > at else None
    scales = np.array(attr(node, "scales", ())) if given is None else pair.old.array(given)
    named = [axis % rank for axis in ints(node, "axes", range(rank))]
    if scales is None or scales.size != len(named):
        return True
    return all(scale == 1 for axis, scale in zip(named, scales.reshape(-1), strict=True) if axis == 1)


def pad(pair: Pair, units: Units) -> list[Unit]:
    """Zeros, or elements of the tensor itself, around it."""
    for other in units[1:]:
        pair.same(other)
    unit, rank = only(units), rank_of(pair.x())
    if attr(pair.before, "mode", "constant") != "constant":
        widths = _pad_widths(pair)
        unit = pair.even(unit, [i for i in range(rank) if widths is None or widths[i] or widths[rank + i]])
        return [pair.result(unit.scale, unit.shift)]
    pads = zero_pads(pair.old, pair.before)
    if pads is None:
        return rigid(pair, units)
    if max(pads) > 0:
        unit = pair.unshifted(unit)
    unit = pair.even(unit, [i for i in range(rank) if pads[i] or pads[rank + i]])
    return [pair.result(unit.scale, unit.shift)]


def _pad_widths(pair: Pair) -> list[int] | None:
    node, rank = pair.before, rank_of(pair.x())
    if len(node.inputs) < 2:
        return list(ints(node, "pads", ()))
    given = pair.old.array(node.inputs[1])
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    named = range(rank) if axes is None else pair.old.array(axes)
    if given is None or named is None:
        return None
    widths = [0] * (2 * rank)
    for i, axis in enumerate(int(a) % rank for a in named):
        widths[axis], widths[rank + axis] = int(given[i]), int(given[i + len(given) // 2])
    return widths


def cumulative(pair: Pair, units: Units) -> list[Unit]:
    """A running sum."""
    axis = pair.old.array(pair.before.inputs[1])
    if axis is None:
        return rigid(pair, units)
    unit = pair.unshifted(pair.even(only(units), [int(axis.reshape(-1)[0]) % rank_of(pair.x())]))
    return [pair.result(unit.scale, unit.shift)]
