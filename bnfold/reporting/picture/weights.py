"""The weights of one linear operator before and after: how far they moved, and what each output channel spans.

A quantiser with one scale for a whole tensor loses what lies between the largest weights of its channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.reporting.picture.views import Operator, Weight

PROFILE = 64  # numbers that a channel profile has at most
DIGITS = 4

Array = NDArray[Any]


@dataclass(frozen=True)
class Channels:
    """The largest |weight| of each output channel of one operator.

    Attributes:
        shape: Of the weight.
        quantiles: Smallest, first quartile, median, third quartile, largest.
        profile: One number per channel; of more than 64, the largest of neighbouring ones.
        bias: The largest |bias|; None where there is none.
    """

    shape: tuple[int, ...]
    quantiles: tuple[float, ...]
    profile: tuple[float, ...]
    bias: float | None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `--json`."""
        return {
            "shape": list(self.shape),
            "quantiles": [_short(value) for value in self.quantiles],
            "profile": [_short(value) for value in self.profile],
            "bias": None if self.bias is None else _short(self.bias),
        }


@dataclass(frozen=True)
class WeightChange:
    """A linear operator and its weights before and after.

    Attributes:
        name: Its name.
        op: Its type.
        before: What it had; None for one that is new.
        after: What it has; None for one that is gone.
        moved: max|W' − W| / max|W|; None where the two have different shapes.
        factor: Between what the largest weight of each output channel was multiplied by.
        bias: `"same"`, `"changed"`, `"new"`, `"gone"` or `"none"`.
    """

    name: str
    op: str
    before: Channels | None
    after: Channels | None
    moved: float | None = None
    factor: tuple[float, float] | None = None
    bias: str = "none"

    @property
    def changed(self) -> bool:
        """Whether any number of it is another."""
        return self.before is None or self.after is None or self.moved != 0 or self.bias not in ("same", "none")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `--json`; `after` is `"same"` where nothing changed."""
        after = None if self.after is None else self.after.to_dict() if self.changed else "same"
        return {
            "name": self.name,
            "op": self.op,
            "before": None if self.before is None else self.before.to_dict(),
            "after": after,
            "moved": None if self.moved is None else _short(self.moved),
            "factor": None if self.factor is None else [_short(end) for end in self.factor],
            "bias": self.bias,
        }


@dataclass(frozen=True)
class _Stored:
    """What is stored of an operator.

    Attributes:
        rows: The weight, its output channels first, in single precision at least.
        largest: The largest |weight| of each.
        bias: The bias.
    """

    rows: Array
    largest: Array
    bias: Array | None


def compared(before: Operator | None, after: Operator | None) -> WeightChange | None:
    """A linear operator before and after; None where neither has a weight to look at."""
    op = before or after
    with np.errstate(all="ignore"):  # weights that are not finite are told as they are
        one = _read(before)
        two = one if after is before else _read(after)
        if op is None or (one is None and two is None):
            return None
        channels = (None if one is None else _channels(one), None if two is None else _channels(two))
        bias = _bias(None if one is None else one.bias, None if two is None else two.bias)
        if one is None or two is None or one.rows.shape != two.rows.shape:
            return WeightChange(op.name, op.op, *channels, None, None, bias)
        return WeightChange(op.name, op.op, *channels, _moved(one, two), _factor(one, two), bias)


def _read(operator: Operator | None) -> _Stored | None:
    """What is stored of an operator; None where it is nothing to compare."""
    if operator is None or operator.weight is None:
        return None
    weight: Weight = operator.weight
    array = weight.read()
    if array.ndim < 2 or not array.size or array.dtype.kind in "OSUc":
        return None
    rows = np.moveaxis(_wide(array), weight.axis, 0)
    flat = rows.reshape(len(rows), -1)
    largest = np.maximum(flat.max(axis=1), -flat.min(axis=1))
    return _Stored(rows, largest, None if weight.bias is None else _wide(weight.bias()))


def _wide(array: NDArray[Any]) -> Array:
    """Single precision stays as it is, which is exact enough for four digits; halves and integers are widened."""
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float64 if array.dtype.kind in "iub" else np.float32)


def _moved(before: _Stored, after: _Stored) -> float:
    """max|W' − W| / max|W|, 0 only where they are the same."""
    if np.array_equal(before.rows, after.rows, equal_nan=True):
        return 0.0
    difference = after.rows - before.rows
    moved, size = max(float(difference.max()), -float(difference.min())), float(before.largest.max())
    return moved / size if size else math.inf


def _channels(stored: _Stored) -> Channels:
    largest = stored.largest
    quantiles = np.quantile(largest, (0, 0.25, 0.5, 0.75, 1))
    parts = np.array_split(largest, min(PROFILE, len(largest)))
    return Channels(
        stored.rows.shape,
        tuple(float(value) for value in quantiles),
        tuple(float(part.max()) for part in parts),
        None if stored.bias is None else float(np.max(np.abs(stored.bias), initial=0.0)),
    )


def _factor(before: _Stored, after: _Stored) -> tuple[float, float] | None:
    there = before.largest > 0
    ratios = after.largest[there] / before.largest[there]
    return (float(ratios.min()), float(ratios.max())) if ratios.size else None


def _bias(before: Array | None, after: Array | None) -> str:
    if before is None or after is None:
        return "none" if before is after else "new" if before is None else "gone"
    return "same" if np.array_equal(before, after, equal_nan=True) else "changed"


def _short(value: float) -> float | None:
    """A number with as many digits as a report shows; None where it is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
