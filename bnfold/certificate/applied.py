"""A linear operator behind a unit: new weights, and what becomes of the shift.

    W·(S ⊙ v + T) + b  =  (W·S) v + (b + W·T)

`W·T` is the operator's answer to a constant image, which must be the same at every position: zeros that are padded are
not measured in the new unit.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from bnfold.certificate.bounds import Bound
from bnfold.certificate.forms import Form, Mismatch, Term, Unit, channel_of, level, settled, spread, vector
from bnfold.certificate.sides import Side, sizes_of
from bnfold.certificate.taps import Taps
from bnfold.certificate.units import nothing


def applied(side: Side, form: Form, taps: Taps, bias: Bound) -> Form:
    """A linear operator behind a form, with a bias.

    Args:
        side: The model it belongs to.
        form: What it reads.
        taps: Its weights.
        bias: Its bias; broadcasts against its result.

    Raises:
        Mismatch: What it reads is no sum of scaled tensors, or its shift does not pass.
    """
    if form.single is not None:
        value, scale = form.single
        across = [i for i in range(taps.rank) if i != taps.axis]
        form = level(Unit(value, scale, form.const), side.fixed(value), across).form
    form, shift = _passed(side, form, taps)
    read = {value: term for value, term in form.terms.items() if not nothing(term).all()} or dict(form.terms)
    alone = len(read) == 1
    terms: dict[Hashable, Term] = {}
    for value, term in read.items():
        kernel, around = taps, (0,) * len(taps.window)
        if isinstance(term, Taps):
            padding = _padding(term, taps)
            if padding is None:
                raise Mismatch("what it reads has no counterpart after")
            around = tuple(b + e for b, e in zip(term.slide.begin, term.slide.end, strict=True))
            kernel, term = padding
        scale = vector(term, taps.axis)
        if scale.mid.size not in (1, taps.ins):
            raise Mismatch(f"it reads {scale.mid.size} channels and has weights for {taps.ins}")
        if not (alone or _fills(value, taps, around)):
            raise Mismatch("it reads a sum of tensors whose sizes are not known to be the same")
        terms[value] = _plainly(kernel.of_input(scale))
    return Form(terms, bias if shift is None else bias + shift)


def _plainly(taps: Taps) -> Term:
    """A kernel that does no more than scale channels as a scale."""
    if not (_only_pads(taps) and taps.is_pointwise):
        return taps
    return _scale_of(taps)


def _scale_of(taps: Taps) -> Bound:
    """What a kernel of one tap per channel multiplies with."""
    flat = Bound(taps.mid.reshape(-1), np.broadcast_to(taps.err, taps.mid.shape).reshape(-1))
    return spread(flat, taps.axis, taps.rank)


def _passed(side: Side, form: Form, taps: Taps) -> tuple[Form, Bound | None]:
    """What an operator reads, and what it makes of its shift (None where there is none).

    Where the shift does not pass, constant channels are read as constants.
    """
    words, known = "", form
    for fixed in (None, side.fixed, lambda v: _zeros(side.fixed(v))):  # what is 0 everywhere is 0 in the padding, too
        known = form if fixed is None else settled(form, fixed)
        shifted = known.const.mid.any() or known.const.err.any()
        try:
            return known, _shift(known.const, taps) if shifted else None
        except Mismatch as mismatch:
            words = str(mismatch)
    if known.single is None:
        raise Mismatch(words)
    value, scale = known.single
    return unshifted(Unit(value, scale, known.const), side.fixed(value), words).form, None


def _fills(value: Hashable, taps: Taps, around: tuple[int, ...]) -> bool:
    """Whether one of the tensors that are added to be read is as large as their sum, or need not be.

    Args:
        value: The tensor.
        taps: What reads the sum.
        around: Zeros that are put around the tensor before, per axis of space.
    """
    if not isinstance(value, ir.Value) or value.shape is None or len(value.shape) != taps.rank:
        return False
    sizes = sizes_of(value)
    if sizes[taps.axis] != taps.ins:
        return False
    if taps.is_pointwise and not any(around):
        return True
    known = [size for size in sizes[2:] if isinstance(size, int)]
    return len(known) == len(around) and tuple(map(sum, zip(known, around, strict=True))) == taps.slide.sizes


def _zeros(known: Bound | None) -> Bound | None:
    return None if known is None else Bound.exact(np.where(known.mid == 0, 0.0, np.nan))


def unshifted(unit: Unit, fixed: Bound | None, words: str) -> Unit:
    """The same unit with the same zero, which it must have; a channel that is constant may take another scale for it.

    Args:
        unit: Any unit.
        fixed: What constant its value is, per channel, NaN where it is none.
        words: Why its zero must be the same.

    Raises:
        Mismatch: Its zero is another one.
    """
    wrong = ~unit.shift.holds(0.0)
    zero = Bound.filled(0.0, unit.shift.rank)
    if not wrong.any():
        return Unit(unit.value, unit.scale, zero, unit.dead)
    if fixed is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = unit.shift.mid / fixed.mid
            doubt = (unit.shift.err + np.abs(ratio) * fixed.err) / np.abs(fixed.mid)
        free = wrong & (unit.scale.mid == 0) & np.isfinite(ratio) & unit.shift.known
        if not (wrong & ~free).any():
            other = Bound(np.where(free, ratio, 0.0), np.where(free, doubt, 0.0))
            return Unit(unit.value, unit.scale.where(free, other), zero, unit.dead)
        wrong = wrong & ~free
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    shift = float(unit.shift.mid[at])
    raise Mismatch(f"{words}: zero before is {-shift:.4g} steps away after in channel {channel_of(at)}", differs=True)


def _shift(const: Bound, taps: Taps) -> Bound:
    """What an operator makes of a constant."""
    by_position = any(size != 1 for i, size in enumerate(const.mid.shape) if i != taps.axis)
    if by_position and taps.is_pointwise:
        return taps.by_position(const)
    response, even = taps.response(vector(const, taps.axis))
    if not even.all():
        channel = int(np.argmin(even))
        raise Mismatch(f"it pads zeros, and the zero of what it reads is another one after (output channel {channel})")
    return spread(response, taps.axis, taps.rank)


def wider(taps: Taps, begin: tuple[int, ...], end: tuple[int, ...]) -> Taps | None:
    """Padding of padding; None of anything else."""
    return _padded(taps, begin, end) if _only_pads(taps) else None


def _padding(term: Taps, taps: Taps) -> tuple[Taps, Bound] | None:
    """Padding before a convolution as the convolution's own, and the scale that stood there; None of anything else."""
    slides = not taps.slide.transposed and taps.slide.automatic == "NOTSET" and len(term.window) == len(taps.window)
    if not _only_pads(term) or not slides:
        return None
    padded = _padded(taps, term.slide.begin, term.slide.end)
    return replace(padded, slide=replace(padded.slide, sizes=term.slide.sizes)), _scale_of(term)


def _only_pads(taps: Taps) -> bool:
    """Whether a kernel only scales channels and puts zeros around them."""
    one_tap = set(taps.window) <= {1} and set(taps.slide.strides) <= {1}
    return one_tap and taps.groups == taps.ins == taps.outs


def _padded(taps: Taps, begin: tuple[int, ...], end: tuple[int, ...]) -> Taps:
    """The kernel with more zeros before and behind."""
    before, behind = (
        tuple(a + b for a, b in zip(own, more, strict=True))
        for own, more in ((taps.slide.begin, begin), (taps.slide.end, end))
    )
    return replace(taps, slide=replace(taps.slide, begin=before, end=behind))
