"""In which unit a value of the model after shows a form: both are written in the same values, and divided.

Every coefficient of an output channel must give the same `S`, within the bounds of both; what is left of the constants
is `T`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bnfold.certificate.bounds import NOISE, UNKNOWN, Array, Bound
from bnfold.certificate.forms import Fixed, Form, Mismatch, Term, Unit, alike, channel_of, settled
from bnfold.certificate.taps import Taps, align


def unit_in(form: Form, target: Form, value: Hashable, fixed: Fixed, *, losing: bool = False) -> Unit:
    """The unit in which a value of the model after shows a form.

    A channel that is constant before and after keeps its unit if it is the same constant, else gets one with the same
    zero, if there is any.

    Args:
        form: What the value before is.
        target: What the value after is, in the same values.
        value: The value after.
        fixed: Which channels of values after are constant.
        losing: Whether channels may be left out that the value after does not hold, which nothing may read then.

    Raises:
        Mismatch: It is not that value in any unit.
    """
    form, target = settled(form, fixed), settled(target, fixed)
    low, high = np.full((1,) * form.rank, -np.inf), np.full((1,) * form.rank, np.inf)
    still = np.ones((1,) * form.rank, dtype=bool)  # output channels that are constant on both sides
    for key in dict.fromkeys([*form.terms, *target.terms]):
        least, most, quiet = _ratios(form.terms.get(key), target.terms.get(key), form.rank)
        low, high = np.maximum(low, least), np.minimum(high, most)
        still = still & quiet
    impossible = (low == np.inf) | (high == -np.inf)
    if form.dead is not None:
        dead = impossible & form.dead.mask & silent(target)
        form = replace(form, const=form.const.where(dead, form.dead.constant))
        still, impossible = still | dead, impossible & ~dead
    lost = np.zeros((1,) * form.rank, dtype=bool)
    if losing:
        lost = silent(target) & impossible
        impossible = impossible & ~lost
    low, high = np.where(still | lost, 0.0, low), np.where(still | lost, 0.0, high)
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(low), np.abs(high))
        apart = np.where(impossible, np.inf, (low - high) / np.maximum(size, 1e-300))
    if (apart > 4 * NOISE).any():
        worst = np.unravel_index(int(np.argmax(apart)), apart.shape)
        raise Mismatch(_disagreement(float(apart[worst]), worst), differs=True)
    low, high = np.minimum(low, high), np.maximum(low, high)
    scale = Bound.between(low, high)
    shift = form.const - target.const * scale
    untouched = (scale.mid == 1) & (form.const.mid == target.const.mid) & (form.const.err <= 3 * target.const.err)
    shift = shift.where(untouched, Bound(np.zeros((1,) * form.rank), np.minimum(shift.err, target.const.err)))
    if still.any():
        scale, shift = _constants(scale, shift, form.const, target.const, still)
    if lost.any():
        shift = shift.where(lost, Bound(np.zeros((1,) * form.rank), np.full((1,) * form.rank, UNKNOWN)))
    return Unit(value, scale, shift, form.dead)


def same_constants(unit: Unit, fixed: Bound | None) -> Unit:
    """The same unit, in which constant channels that are the same before and after have no scale and no shift.

    Args:
        unit: Any unit.
        fixed: What constant its value is, per channel, NaN where it is none; None where it never is.
    """
    if fixed is None or fixed.rank != unit.scale.rank:
        return unit
    here = (unit.scale.mid == 0) & (unit.scale.err == 0) & (unit.shift - fixed).holds(0.0)
    if not here.any():
        return unit
    one, zero = Bound.filled(1.0, unit.scale.rank), Bound.filled(0.0, unit.scale.rank)
    return Unit(unit.value, unit.scale.where(here, one), unit.shift.where(here, zero), unit.dead)


def silent(form: Form) -> NDArray[np.bool_]:
    """The channels to which no term contributes anything."""
    quiet = np.ones((1,) * form.rank, dtype=bool)
    for term in form.terms.values():
        quiet = quiet & nothing(term)
    return quiet


def nothing(term: Term) -> NDArray[np.bool_]:
    """The output channels to which a term contributes nothing."""
    if isinstance(term, Bound):
        return np.asarray(term.mid == 0)
    shape = [1] * term.rank
    shape[term.axis] = -1
    return np.asarray(~term.mid.reshape(term.outs, -1).any(axis=1)).reshape(shape)


def _constants(
    scale: Bound, shift: Bound, before: Bound, after: Bound, still: NDArray[np.bool_]
) -> tuple[Bound, Bound]:
    """The units of channels that are constant on both sides."""
    one, zero = Bound.filled(1.0, scale.rank), Bound.filled(0.0, scale.rank)
    equal = still & (before - after).holds(0.0)
    return scale.where(equal, one), shift.where(equal, zero)


def _disagreement(apart: float, at: tuple[np.intp, ...]) -> str:
    channel = channel_of(at)
    if not np.isfinite(apart):
        return f"channel {channel}: a weight that must be 0 is not"
    return f"channel {channel}: weights disagree by {apart:.2g} of their value"


def _ratios(f: Term | None, g: Term | None, rank: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Between what the scale must be for `f = S·g`, per output channel, and where `g` and `f` are nothing."""
    if f is None or g is None:
        present = f if f is not None else g
        assert present is not None
        none = (
            Bound.filled(0.0, rank)
            if isinstance(present, Bound)
            else replace(present, mid=np.zeros_like(present.mid), err=np.zeros((1,) * present.mid.ndim))
        )
        f, g = (none if f is None else f), (none if g is None else g)
    if isinstance(f, Bound) and isinstance(g, Bound):
        shape = np.broadcast_shapes(f.mid.shape, g.mid.shape)
        return _divided(*(np.broadcast_to(a, shape)[..., None] for a in (f.mid, f.err, g.mid, g.err)))
    one, two = alike(f, g)
    aligned = align(one, two)
    if aligned is None:
        raise Mismatch("the operators slide differently")
    one, two = aligned
    rows = [_rows(a, one) for a in (one.mid, one.err, two.mid, two.err)]
    low, high, quiet = _divided(*(row[:1] for row in rows))
    if not (low - high > 1e-3 * np.abs(low)).any():  # else another operator altogether: no need to look further
        low, high, quiet = _divided(*rows)
    sizes = [-1 if i == one.axis else 1 for i in range(rank)]
    return low.reshape(sizes), high.reshape(sizes), quiet.reshape(sizes)


def _rows(array: Array, like: Taps) -> Array:
    """One row per output channel."""
    if array.size == 1:
        return np.broadcast_to(array.reshape(1, 1), (like.outs, 1))
    return np.broadcast_to(array, like.mid.shape).reshape(like.outs, -1)


def _divided(f: Array, f_err: Array, g: Array, g_err: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The numbers `S` with `f = S·g` for all along the last axis, between which bounds, and where there is no `g`."""
    zero = g == 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # where `g` is 0 there is no ratio
        ratio = f / g
        doubt = (f_err + np.abs(ratio) * g_err) / np.abs(g)
        doubt *= 1 + 4 * np.max(g_err / np.where(zero, 1.0, np.abs(g)), initial=0.0)
        same = ((f == g) & (f_err <= 3 * g_err)).all(axis=-1, keepdims=True)
        if same.any():  # what was not touched is what it was, but for the one rounding that may have left it so
            doubt = np.where(same, (g_err / np.where(zero, np.inf, np.abs(g))).max(axis=-1, keepdims=True), doubt)
        low, high = ratio - doubt, ratio + doubt
    if zero.any():
        fine = np.abs(f) <= f_err
        low = np.where(zero, np.where(fine, -np.inf, np.inf), low)
        high = np.where(zero, np.where(fine, np.inf, -np.inf), high)
    return low.max(axis=-1), high.min(axis=-1), zero.all(axis=-1) & (np.abs(f) <= f_err).all(axis=-1)
