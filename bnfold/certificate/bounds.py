"""Numbers with the error they may have: a midpoint and a radius, both arrays that broadcast against a tensor.

What stands in the model before is exact. What stands in the model after was rounded once to the dtype it is stored in,
so it is known up to half a unit in the last place. Everything derived from both carries its bound along (interval
arithmetic in midpoint-radius form, Rump 1999), so that "equal" means equal up to the roundings that a correct fold
makes, and nothing looser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNKNOWN = 1e120  # an error that says that nothing is known; finite, so that nothing is left of it behind a weight of 0
NOISE = 2.0**-50  # what our own float64 arithmetic may add to each operation, relative


@dataclass(frozen=True)
class Bound:
    """Real numbers within `err` of `mid`.

    Attributes:
        mid: float64.
        err: float64 of a shape that broadcasts to that of `mid`, not negative.
    """

    mid: Array
    err: Array

    @classmethod
    def exact(cls, values: Any) -> Bound:
        """Numbers that are what they are."""
        mid = np.asarray(values, dtype=np.float64)
        return cls(mid, np.zeros((1,) * mid.ndim))

    @classmethod
    def filled(cls, value: float, rank: int) -> Bound:
        """One exact number for a whole tensor."""
        return cls.exact(np.full((1,) * rank, value))

    @classmethod
    def between(cls, low: Array, high: Array) -> Bound:
        """Numbers between two others."""
        mid = low / 2 + high / 2
        return cls(mid, np.maximum(high - mid, 0.0) + NOISE * np.abs(mid) * (high != low))

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.mid.ndim

    @property
    def is_exact(self) -> bool:
        """Whether nothing but float64 arithmetic may have moved the numbers."""
        return bool((self.err <= 16 * NOISE * np.abs(self.mid)).all())

    def __add__(self, other: Bound) -> Bound:
        mid = self.mid + other.mid
        return Bound(mid, self.err + other.err + NOISE * (np.abs(self.mid) + np.abs(other.mid)) * (mid != self.mid))

    def __sub__(self, other: Bound) -> Bound:
        return self + (-other)

    def __neg__(self) -> Bound:
        return Bound(-self.mid, self.err)

    def __mul__(self, other: Bound) -> Bound:
        mid = self.mid * other.mid
        err = np.abs(self.mid) * other.err + np.abs(other.mid) * self.err + self.err * other.err
        noise = NOISE * np.abs(mid) * ((self.mid != 1) & (other.mid != 1))
        err = np.minimum(err + noise, UNKNOWN)
        if self.known.all() and other.known.all():
            return Bound(mid, err)
        mine, theirs = ((b.mid != 0) | (b.err != 0) for b in (self, other))
        return Bound(mid, np.where((~self.known & theirs) | (~other.known & mine), UNKNOWN, err))

    def inverse(self) -> Bound:
        """`1 / x`; infinite where the bound holds 0."""
        low = np.abs(self.mid) - self.err
        with np.errstate(divide="ignore", invalid="ignore"):
            mid = 1.0 / self.mid
            err = np.where(low > 0, np.abs(mid) * (self.err / np.where(low > 0, low, 1.0)), np.inf)
        return Bound(mid, err + NOISE * np.abs(mid) * (self.mid != 1))

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where anything is known of a number."""
        return np.asarray(self.err < UNKNOWN**0.5)

    def holds(self, value: float) -> NDArray[np.bool_]:
        """Where a number lies within the bound."""
        return np.asarray((np.abs(self.mid - value) <= self.err) & self.known)

    def moved(self, move: Callable[[Array], Array]) -> Bound:
        """The same numbers at other places."""
        return Bound(move(self.mid), move(np.broadcast_to(self.err, self.mid.shape)))

    def even(self, axes: Iterable[int]) -> Bound | None:
        """The same numbers with size 1 along axes on which they do not vary, up to their errors; None where they do."""
        low, high = self.mid - self.err, self.mid + self.err
        uneven = tuple(axis for axis in axes if self.mid.shape[axis] != 1 or low.shape[axis] != 1)
        if not uneven:
            return self
        first = self.mid
        for axis in uneven:
            first = first.take([0], axis=axis)
        if (first == self.mid).all():
            err = np.broadcast_to(self.err, self.mid.shape)
            return Bound(first, err.min(axis=uneven, keepdims=True))
        bottom, top = low.max(axis=uneven, keepdims=True), high.min(axis=uneven, keepdims=True)
        if (bottom > top).any():
            return None
        return Bound(bottom / 2 + top / 2, (top - bottom) / 2 + NOISE * np.abs(top))

    def where(self, mask: NDArray[np.bool_], other: Bound) -> Bound:
        """`other` where the mask is set, else these."""
        return Bound(np.where(mask, other.mid, self.mid), np.where(mask, other.err, self.err))


@dataclass(frozen=True)
class Rounding:
    """What one rounding to a stored dtype may do to a number.

    Attributes:
        relative: Half a unit in the last place of the dtype, relative, times the units in the last place allowed.
        smallest: The same for numbers too small to be normal, absolute.
    """

    relative: float
    smallest: float

    @classmethod
    def of(cls, dtype: np.dtype[Any], ulps: float = 0.5) -> Rounding:
        """The rounding to a float dtype, within so many units in the last place."""
        if dtype.kind == "f":
            info = np.finfo(dtype)
            return cls(ulps * float(info.eps), ulps * float(info.smallest_subnormal))
        import ml_dtypes

        small = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
        return cls(ulps * float(small.eps), ulps * float(small.smallest_subnormal))

    def bound(self, values: Array) -> Array:
        """How far the numbers that were rounded to these may be away."""
        return np.asarray(self.relative * np.abs(values) + self.smallest * (values != 0))

    def of_stored(self, values: Array) -> Bound:
        """The numbers that may have been rounded to these. A stored 0 was 0: what rounds to it is no weight of ours."""
        return Bound(values, self.bound(values))
