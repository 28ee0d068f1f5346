"""Numbers as a reader likes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

NONE = "–"


def number(value: float | None, digits: int = 3) -> str:
    """`4.2e-7`, `0.125`, `1,024`; a dash for what was not measured."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        return f"{value:,.0f}" if 0 <= int(exponent) < 7 else f"{mantissa}e{int(exponent)}"
    return text


def span(ends: Sequence[float | None] | None, digits: int = 3) -> str:
    """`0.98 … 1.02`; one number where both ends are the same."""
    if ends is None or any(end is None for end in ends):
        return NONE
    low, high = (number(end, digits) for end in ends)
    return low if low == high else f"{low} … {high}"


def size(count: int | None) -> str:
    """`889 kB`."""
    if count is None:
        return NONE
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def milliseconds(value: float | None) -> str:
    """`0.549 ms`."""
    return NONE if value is None else f"{number(value)} ms"


def plural(count: int, noun: str) -> str:
    """`1 BatchNorm`, `17 BatchNorms`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(value: float | None, digits: int = 2) -> str:
    """`99.20 %`."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"
