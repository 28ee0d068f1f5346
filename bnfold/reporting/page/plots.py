"""Charts as numbers: where marks and ticks stand on an axis of 0 to 100, which the template draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_TICKS = 7

LEAST_RATIO = 10.0  # of the ends of a logarithmic axis, so that there are ticks on it


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        low: The number at 0.
        high: The number at 100.
        log: Whether its steps are powers of ten.
        ticks: Position and label of each tick.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float | None) -> float | None:
        """The position of a number, within the axis; None where it cannot stand on it."""
        if value is None or not math.isfinite(value) or (self.log and value <= 0):
            return None
        low, high, x = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(min(max(100 * (x - low) / (high - low), 0.0), 100.0), 2)


def linear_axis(values: Iterable[float | None], around: float) -> Axis:
    """An axis that holds all numbers, and one that must be on it, with three to seven round ticks."""
    known = [value for value in values if value is not None and math.isfinite(value)] + [around]
    low, high = min(known), max(known)
    pad = 0.06 * (high - low) or 0.05 * (abs(around) or 1.0)
    low, high = low - pad, high + pad
    step = _step((high - low) / 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    axis = Axis(low, high, False, ())
    ticks = tuple((axis.at(i * step) or 0.0, f"{i * step:.{digits}f}") for i in range(first, last + 1))
    return Axis(low, high, False, ticks)


def log_axis(values: Iterable[float | None]) -> Axis:
    """An axis by powers of ten that holds all positive numbers, with a few round ticks."""
    known = [value for value in values if value is not None and math.isfinite(value) and value > 0] or [1.0]
    low, high = min(known) / 1.3, max(known) * 1.3
    if high / low < LEAST_RATIO:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(LEAST_RATIO), middle * math.sqrt(LEAST_RATIO)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_ones = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
    axis = Axis(low, high, True, ())
    every = math.ceil(len(round_ones) / MOST_TICKS) or 1
    ticks = tuple((axis.at(value) or 0.0, _tick(value)) for value in round_ones[::every])
    return Axis(low, high, True, ticks)


def _step(rough: float) -> float:
    """A round number of about this size."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _tick(value: float) -> str:
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
