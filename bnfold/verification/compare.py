"""How far apart two arrays are, and when that is close enough.

    scale = max|before|                  over every finite element of the output, in every run; 1 where that is 0
    rel   = max|before − after| / scale
    close = max|before − after| ≤ atol + rtol·scale

The scale belongs to the whole output, not to the element: a logit of 1e-9 beside one of 10 is noise, and an
elementwise relative error would only measure how small the smallest element happens to be.

Shape, dtype and non-finite elements come before any tolerance: no `rtol` makes a missing axis, an int for a float or a
NaN for a number acceptable. NaN against NaN, or an infinity against the same infinity, at the same place is equal, and
counted, so that a report can say how much of an output was not comparable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import UsageError


@dataclass(frozen=True)
class Tolerance:
    """What difference is allowed.

    Attributes:
        rtol: As a part of the output's scale.
        atol: On top of it, for outputs whose scale is 0 or nearly so.
    """

    rtol: float
    atol: float


EXACT = Tolerance(0.0, 0.0)

TOLERANCES = {
    "float64": Tolerance(1e-10, 1e-13),
    "float32": Tolerance(1e-5, 1e-8),
    "float16": Tolerance(1e-2, 1e-5),
    "bfloat16": Tolerance(5e-2, 1e-5),
}


@dataclass(frozen=True)
class Limits:
    """From where on a number is worth a warning, and from where on it is too much.

    Attributes:
        warn: A warning above it.
        fail: A failure above it.
    """

    warn: float
    fail: float

    def level(self, number: float) -> int:
        """0 within both, 1 above the first, 2 above the second (a NaN is)."""
        return 0 if number <= self.warn else 1 if number <= self.fail else 2


# Distance of the model after from float64, as a part of the output's scale. `yardstick` says how it goes with RATIO.
DRIFT = {
    "float64": Limits(1e-13, 1e-11),
    "float32": Limits(1e-5, 1e-4),
    "float16": Limits(4e-3, 2e-2),
    "bfloat16": Limits(3e-2, 1e-1),
}
RATIO = Limits(2.0, 4.0)  # the same distance, as a multiple of that of the model before


def tolerance_for(dtype: np.dtype[Any], rtol: float | None = None, atol: float | None = None) -> Tolerance:
    """The tolerance for a dtype; integers, booleans and strings must agree exactly.

    Args:
        dtype: The output's dtype.
        rtol: Replaces the table's value for floating-point outputs.
        atol: The same for the absolute part.
    """
    tabled = TOLERANCES.get(dtype.name)
    if tabled is None:
        return EXACT
    return Tolerance(tabled.rtol if rtol is None else rtol, tabled.atol if atol is None else atol)


def check_tolerance(name: str, value: float | None) -> None:
    """Refuses a tolerance that nothing, or not a number, could meet.

    Raises:
        UsageError: It is negative or NaN.
    """
    if value is not None and not value >= 0:
        raise UsageError(f"--{name} must be 0 or more, not {value:g}", f"Pass --{name} 1e-5, for example.")


@dataclass(frozen=True)
class Difference:
    """What separates two arrays, or two outputs over several runs.

    Attributes:
        max_abs: The largest |before − after|; None where the arrays cannot be compared.
        scale: The largest finite |before|.
        compared: Number of elements that were finite on both sides (or of a dtype that always is).
        non_finite: Number of elements that were the same NaN or infinity on both sides.
        problem: Why no tolerance can make them equal, in words; empty when one can.
    """

    max_abs: float | None
    scale: float = 0.0
    compared: int = 0
    non_finite: int = 0
    problem: str = ""

    @property
    def rel(self) -> float | None:
        """`max_abs` as a part of the output's scale (as it is, where the scale is 0)."""
        if self.max_abs is None:
            return None
        return self.max_abs / (self.scale or 1.0)

    def within(self, tolerance: Tolerance) -> bool:
        """Whether the difference is allowed."""
        return self.max_abs is not None and self.max_abs <= tolerance.atol + tolerance.rtol * self.scale

    def merge(self, other: Difference) -> Difference:
        """Both runs of one output together: the worst difference, the largest scale, the first problem."""
        if self.max_abs is None or other.max_abs is None:
            return replace(self if self.max_abs is None else other, scale=max(self.scale, other.scale))
        return Difference(
            max_abs=max(self.max_abs, other.max_abs),
            scale=max(self.scale, other.scale),
            compared=self.compared + other.compared,
            non_finite=self.non_finite + other.non_finite,
        )


def difference(before: NDArray[Any], after: NDArray[Any]) -> Difference:
    """Compares two arrays; neither is changed."""
    if before.dtype != after.dtype:
        return Difference(None, problem=f"its dtype is {before.dtype} before and {after.dtype} after")
    if before.shape != after.shape:
        return Difference(None, problem=f"its shape is {_shape(before)} before and {_shape(after)} after")
    if before.dtype.name not in TOLERANCES:
        return _exact_difference(before, after)
    wide_before, wide_after = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(wide_before) & np.isfinite(wide_after)
    unequal = ~finite & ~np.equal(wide_before, wide_after) & ~(np.isnan(wide_before) & np.isnan(wide_after))
    scale = float(np.max(np.abs(wide_before), where=np.isfinite(wide_before), initial=0.0))
    if unequal.any():
        return Difference(None, scale=scale, problem=_non_finite_problem(wide_before, wide_after, unequal))
    with np.errstate(over="ignore"):  # two float64 near opposite ends of their range: the gap is infinite, and fails
        gap = np.subtract(wide_before, wide_after, where=finite, out=np.zeros_like(wide_before))
    return Difference(
        max_abs=float(np.max(np.abs(gap), initial=0.0)),
        scale=scale,
        compared=int(finite.sum()),
        non_finite=int(finite.size - finite.sum()),
    )


def _exact_difference(before: NDArray[Any], after: NDArray[Any]) -> Difference:
    unequal = np.not_equal(before, after)
    if unequal.any():
        place = _first(unequal)
        problem = (
            f"{int(unequal.sum())} of {before.size} {before.dtype} values differ, "
            f"the first at {list(place)}: {before[place]} before and {after[place]} after"
        )
        return Difference(None, problem=problem)
    numeric = before.dtype.kind in "iu" and before.size > 0
    scale = float(np.max(np.abs(before.astype(np.float64)))) if numeric else 0.0
    return Difference(max_abs=0.0, scale=scale, compared=before.size)


def _non_finite_problem(before: NDArray[np.float64], after: NDArray[np.float64], unequal: NDArray[np.bool_]) -> str:
    place = _first(unequal)
    return (
        f"{int(unequal.sum())} of {before.size} values are NaN or infinite on one side only, "
        f"the first at {list(place)}: {before[place]:g} before and {after[place]:g} after"
    )


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _shape(array: NDArray[Any]) -> str:
    return "×".join(map(str, array.shape)) if array.ndim else "a scalar"
