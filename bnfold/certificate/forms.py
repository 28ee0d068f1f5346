"""What a value of the model before is, written in values of the model after: `x = Σ_a L_a(a) + c`.

Each `L_a` is a scale per channel or a linear map of one tensor's channels (`taps.Taps`), `c` a constant. Where a single
value `v` of the model after is left, the form is a *unit*: `x = S ⊙ v + T`. Whether a form is the unit of some value is
asked by writing both in the same values and dividing their coefficients: every coefficient of an output channel must
give the same `S`, within the bounds of both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bnfold.certificate.bounds import Bound
from bnfold.certificate.taps import Taps, diagonal, sum_of

Term = Bound | Taps


class Mismatch(Exception):
    """Why two things are not known to be the same, in words.

    Attributes:
        differs: Whether numbers disagree (rather than that nothing was found to compare with).
    """

    def __init__(self, words: str, *, differs: bool = False) -> None:
        super().__init__(words)
        self.differs = differs


@dataclass(frozen=True)
class Dead:
    """Channels that a BatchNorm makes constant up to rounding.

    Attributes:
        mask: bool, where.
        constant: Which constant, and what rounds away of the rest.
    """

    mask: NDArray[np.bool_]
    constant: Bound


@dataclass(frozen=True)
class Form:
    """A value as a sum of linear maps of values of the model after.

    Attributes:
        terms: By value.
        const: What is added; broadcasts against the tensor.
        dead: Channels that may also be read as constants.
    """

    terms: Mapping[Hashable, Term]
    const: Bound
    dead: Dead | None = None

    @classmethod
    def of(cls, value: Hashable, rank: int) -> Form:
        """A value itself."""
        return cls({value: Bound.filled(1.0, rank)}, Bound.filled(0.0, rank))

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.const.rank

    @property
    def single(self) -> tuple[Hashable, Bound] | None:
        """The value and the scale of a unit; None for any other form."""
        if len(self.terms) != 1:
            return None
        (value, term), *_ = self.terms.items()
        return (value, term) if isinstance(term, Bound) else None

    def scaled(self, scale: Bound, shift: Bound) -> Form:
        """`scale·x + shift`, both broadcastable against the tensor."""
        return Form({value: _scaled(term, scale) for value, term in self.terms.items()}, self.const * scale + shift)

    def plus(self, other: Form, sign: float = 1.0) -> Form:
        """`x ± y`."""
        terms = dict(self.terms)
        minus = Bound.filled(sign, other.rank)
        for value, term in other.terms.items():
            term = term if sign == 1 else _scaled(term, minus)
            terms[value] = _sum(terms[value], term) if value in terms else term
        return Form(terms, self.const + (other.const if sign == 1 else other.const * minus))


@dataclass(frozen=True)
class Unit:
    """How a value before is measured after: `x = S ⊙ v + T`. Where `S` is 0, it is the constant `T`.

    Attributes:
        value: `v`.
        scale: `S`, broadcasts against the tensor.
        shift: `T`, likewise.
        dead: Channels that may also be read as constants.
    """

    value: Hashable
    scale: Bound
    shift: Bound
    dead: Dead | None = None

    @property
    def form(self) -> Form:
        """The same as a form."""
        return Form({self.value: self.scale}, self.shift)

    @property
    def is_plain(self) -> bool:
        """Whether the value may be the same before and after."""
        return bool(self.scale.holds(1.0).all() and self.shift.holds(0.0).all())

    def moved(self, value: Hashable, move: Callable[[Bound], Bound]) -> Unit:
        """The unit of what only moves elements, which moves those of the unit likewise."""
        return Unit(value, move(self.scale), move(self.shift))


def plain(value: Hashable, rank: int) -> Unit:
    """The unit of a value that is the same before and after."""
    return Unit(value, Bound.filled(1.0, rank), Bound.filled(0.0, rank))


def channel_of(at: tuple[np.intp, ...]) -> int:
    """The channel that an index into a unit means, for messages."""
    return int(at[1]) if len(at) > 1 and at[1] else int(max(at, default=0))


def vector(bound: Bound, axis: int) -> Bound:
    """A bound that varies along one axis only, as a vector.

    Raises:
        Mismatch: It varies along another one, too.
    """
    flat = bound.even([i for i in range(bound.rank) if i != axis])
    if flat is None:
        raise Mismatch("a unit varies by position, where it must be one per channel")
    return flat.moved(lambda array: array.reshape(-1))


def spread(bound: Bound, axis: int, rank: int) -> Bound:
    """A vector per channel as an array that broadcasts against a tensor."""
    shape = [1] * rank
    shape[axis] = -1
    return Bound(bound.mid.reshape(shape), np.broadcast_to(bound.err, bound.mid.shape).reshape(shape))


def level(unit: Unit, fixed: Bound | None, axes: Sequence[int]) -> Unit:
    """The same unit, with a scale that does not vary along axes where constant channels allow that.

    What is constant after may be measured with any scale; it gets that of its neighbours along the axes, and another
    shift.

    Args:
        unit: Any unit.
        fixed: What constant its value is, per channel, NaN where it is none; None where it never is.
        axes: The axes.
    """
    scale = unit.scale
    if fixed is None or fixed.rank != scale.rank or scale.even(axes) is not None:
        return unit
    free = np.isfinite(fixed.mid) & np.isfinite(scale.mid)
    others = np.where(free, -np.inf, scale.mid).max(axis=tuple(axes), keepdims=True)
    common = scale.where(free, Bound.exact(np.where(np.isfinite(others), others, 1.0)))
    common = common.where((scale - common).holds(0.0), scale)
    known = Bound.filled(0.0, scale.rank).where(free, fixed)
    return Unit(unit.value, common, unit.shift + (scale - common) * known, unit.dead)


def _scaled(term: Term, scale: Bound) -> Term:
    return term.of_output(vector(scale, term.axis)) if isinstance(term, Taps) else term * scale


def _sum(a: Term, b: Term) -> Term:
    if isinstance(a, Bound) and isinstance(b, Bound):
        return a + b
    one, two = alike(a, b)
    total = sum_of(one, two)
    if total is None:
        raise Mismatch("branches slide differently, so their sum is no single operator")
    return total


def alike(a: Term, b: Term) -> tuple[Taps, Taps]:
    """Two maps of one tensor, of which at least one has taps, both with taps."""
    if isinstance(a, Bound):
        assert isinstance(b, Taps)
        return _with_taps(a, b), b
    return a, b if isinstance(b, Taps) else _with_taps(b, a)


def _with_taps(scale: Bound, like: Taps) -> Taps:
    if like.ins != like.outs:
        raise Mismatch("a tensor is added to one with another number of channels")
    return diagonal(vector(scale, like.axis), like.axis, like.rank, like.ins, like)


Fixed = Callable[[Hashable], "Bound | None"]


def settled(form: Form, fixed: Fixed) -> Form:
    """The same form with constant channels of the values after as constants, where that makes no difference."""
    terms, const = dict(form.terms), form.const
    for value, term in form.terms.items():
        known = fixed(value)
        if known is None:
            continue
        if isinstance(term, Taps) and term.is_pointwise and np.isfinite(known.mid).all():
            terms[value] = replace(term, mid=np.zeros_like(term.mid), err=np.zeros((1,) * term.mid.ndim))
            const = const + term.by_position(known)
        elif isinstance(term, Taps):
            image = known.even([i for i in range(known.rank) if i != term.axis])
            if image is not None and image.mid.size in (1, term.ins):
                terms[value], given = term.without(
                    *(np.broadcast_to(a.reshape(-1), (term.ins,)) for a in (image.mid, image.err))
                )
                const = const + spread(given, term.axis, term.rank)
        else:
            here = np.isfinite(known.mid)
            zero = Bound.filled(0.0, term.rank)
            const = const + (term * zero.where(here, known))
            terms[value] = term.where(here, zero)
    return Form(terms, const, form.dead)
