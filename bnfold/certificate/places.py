"""Laws of operators that choose or place elements; constants among them may be stored in other units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.certificate import moves
from bnfold.certificate.bounds import Array, Bound
from bnfold.certificate.forms import Mismatch, Unit, plain, spread, vector
from bnfold.certificate.pair import Law, Pair, Units, only, rigid, same_constant
from bnfold.certificate.sides import rank_of, sizes_of
from bnfold.frontends.context import attr


def move(of: Callable[[Pair], moves.Move]) -> Law:
    """Elements that only change places."""

    def law(pair: Pair, units: Units) -> list[Unit]:
        for other in units[1:]:
            pair.same(other)
        function = of(pair)
        return [only(units).moved(pair.y(), function)]

    return law


def reshape(pair: Pair) -> moves.Move:
    """Same elements in the same order."""
    return moves.reshape(sizes_of(pair.x()), sizes_of(pair.before.outputs[0]))


def slices(pair: Pair) -> moves.Move:
    """Slice."""
    return moves.slices(pair.old, pair.before)


def expand(pair: Pair) -> moves.Move:
    """Expand."""
    before, after = sizes_of(pair.x()), sizes_of(pair.before.outputs[0])
    new = len(after) - len(before)
    return moves.broadcast(
        len(after), [i for i, size in enumerate(after) if i < new or before[i - new] != size or size is None]
    )


def tile(pair: Pair) -> moves.Move:
    """Tile."""
    repeats = pair.old.array(pair.before.inputs[1])
    axes = [i for i in range(rank_of(pair.x())) if repeats is None or repeats.reshape(-1)[i] != 1]
    return lambda bound: moves.even(bound, axes)


def gather(pair: Pair, units: Units) -> list[Unit]:
    """Some elements along an axis, or rows of a table that may be stored in other units."""
    node = pair.before
    table, other = pair.old.array(node.inputs[0]), pair.new.bound(pair.after.inputs[0])
    axis = int(attr(node, "axis", 0))
    if table is not None:
        pair.same(units[1])
        if other is None or table.shape != other.mid.shape:
            return rigid(pair, units)
        kept = table.ndim - 1
        if axis % table.ndim == kept:
            raise Mismatch("the tables differ", differs=True)
        unit = fitted(table.astype(np.float64), other, kept, pair.y())
        rank = rank_of(node.outputs[0])
        scale, shift = (spread(vector(bound, kept), rank - 1, rank) for bound in (unit.scale, unit.shift))
        return [pair.result(scale, shift)]
    unit = only(units)
    indices, axis = pair.old.array(node.inputs[1]), axis % rank_of(pair.x())
    pair.same(units[1])
    size = sizes_of(pair.x())[axis]
    wanted = node.inputs[1]
    assert wanted is not None
    if indices is None or not isinstance(size, int):
        return [unit.moved(pair.y(), moves.take(axis, None, (1,) * rank_of(wanted)))]
    index = np.where(indices < 0, indices + size, indices).astype(np.int64)
    return [unit.moved(pair.y(), moves.take(axis, index, indices.shape))]


def fitted(before: Array, after: Bound, axis: int, value: ir.Value) -> Unit:
    """The unit per channel in which one constant shows another.

    Raises:
        Mismatch: There is none.
    """
    if (before == after.mid).all():
        return plain(value, before.ndim)
    rows = np.moveaxis(before, axis, 0).reshape(before.shape[axis], -1)
    others = np.moveaxis(after.mid, axis, 0).reshape(rows.shape)
    doubts = np.moveaxis(np.broadcast_to(after.err, after.mid.shape), axis, 0).reshape(rows.shape)
    most, least = others.argmax(axis=1), others.argmin(axis=1)
    pick = np.arange(len(rows))
    width = others[pick, most] - others[pick, least]
    doubt = doubts[pick, most] + doubts[pick, least]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (rows[pick, most] - rows[pick, least]) / width
        err = np.abs(scale) * doubt / width
    lone = width <= doubt  # a constant channel: only its value counts
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = rows[:, 0] / others[:, 0]
    ratio = np.where(np.isfinite(ratio), ratio, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        lone_err = np.nan_to_num(np.abs(ratio) * doubts[:, 0] / np.abs(others[:, 0]))
    scale, err = np.where(lone, ratio, scale), np.where(lone, lone_err, err)
    shift = np.where(lone & (ratio != 0), 0.0, rows[pick, least] - scale * others[pick, least])
    shift_err = np.abs(scale) * doubts[pick, least] + err * np.abs(others[pick, least])
    slack = np.abs(scale)[:, None] * doubts + err[:, None] * np.abs(others) + shift_err[:, None]
    if (np.abs(rows - scale[:, None] * others - shift[:, None]) > slack + 1e-12 * np.abs(rows)).any():
        raise Mismatch("the constants are not the same in any unit", differs=True)
    one, two = (spread(Bound(a, b), axis, before.ndim) for a, b in ((scale, err), (shift, shift_err)))
    return Unit(value, one, two)


def split(pair: Pair, units: Units) -> list[Unit]:
    """One slice per result."""
    if len(pair.before.outputs) != len(pair.after.outputs):
        raise Mismatch("it is split into another number of parts")
    unit, axis = only(units), int(attr(pair.before, "axis", 0)) % rank_of(pair.x())
    results, start = [], 0
    for i, output in enumerate(pair.before.outputs):
        size = sizes_of(output)[axis]
        if isinstance(size, int):
            index = np.arange(start, start + size, dtype=np.int64)
            start += size
            results.append(unit.moved(pair.y(i), moves.take(axis, index)))
        else:
            results.append(unit.moved(pair.y(i), moves.take(axis, None)))
    return results


def concat(pair: Pair, units: Units) -> list[Unit]:
    """Values side by side; a constant part may be stored in another unit."""
    axis = int(attr(pair.before, "axis", 1)) % rank_of(pair.before.outputs[0])
    parts: list[tuple[Unit, Any]] = []
    for value, other, unit in zip(pair.before.inputs, pair.after.inputs, units, strict=True):
        assert value is not None
        if unit is None:
            old, new = pair.old.array(value), pair.new.bound(other)
            if old is None or old.dtype.kind not in "f" or new is None:
                same_constant(pair, value, other)
                unit = plain(pair.y(), rank_of(value))
            else:
                unit = fitted(old.astype(np.float64), new, axis, pair.y())
        parts.append((unit, sizes_of(value)[axis]))
    scale = _beside([(unit.scale, size) for unit, size in parts], axis)
    return [pair.result(scale, _beside([(unit.shift, size) for unit, size in parts], axis))]


def _beside(parts: list[tuple[Bound, Any]], axis: int) -> Bound:
    """Bounds side by side along an axis; one number for all where all parts agree."""
    first = parts[0][0]
    if all(b.mid.size == 1 and b.mid.reshape(-1) == first.mid.reshape(-1) for b, _ in parts):
        return Bound(first.mid, np.max([np.max(b.err) for b, _ in parts]).reshape(first.mid.shape))
    if not all(isinstance(size, int) for _, size in parts):
        raise Mismatch("parts of unknown size are concatenated in different units")
    shape = list(np.broadcast_shapes(*(b.mid.take([0], axis=axis).shape for b, _ in parts)))

    def wide(array: Array, size: int) -> Array:
        return np.broadcast_to(array, [size if i == axis else n for i, n in enumerate(shape)])

    return Bound(
        np.concatenate([wide(b.mid, size) for b, size in parts], axis=axis),
        np.concatenate([wide(np.broadcast_to(b.err, b.mid.shape), size) for b, size in parts], axis=axis),
    )
