"""The weights of one linear operator before and after: how far they moved, and what each output channel spans.

A quantiser with one scale for a whole tensor loses what lies between the largest weights of its channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.picture.views import Operator, Weight

PROFILE = 64  # numbers that a channel profile has at most
DIGITS = 4

Array = NDArray[np.float64]


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
        factor: Between what the norm of each output channel was multiplied by.
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


def compared(before: Operator | None, after: Operator | None) -> WeightChange | None:
    """A linear operator before and after; None where neither has a weight to look at."""
    op = before or after
    one = _read(before)
    two = one if after is before else _read(after)
    if op is None or (one is None and two is None):
        return None
    channels = (None if one is None else _channels(*one), None if two is None else _channels(*two))
    bias = _bias(one and one[1], two and two[1])
    if one is None or two is None or one[0].shape != two[0].shape:
        return WeightChange(op.name, op.op, *channels, None, None, bias)
    return WeightChange(op.name, op.op, *channels, _moved(one[0], two[0]), _factor(one[0], two[0]), bias)


def _moved(before: Array, after: Array) -> float:
    """max|W' − W| / max|W|, 0 only where they are the same."""
    if np.array_equal(before, after, equal_nan=True):
        return 0.0
    size = float(np.max(np.abs(before)))
    return float(np.max(np.abs(after - before))) / size if size else math.inf


def _read(operator: Operator | None) -> tuple[Array, Array | None] | None:
    """Weight, one row per output channel, and bias; None where it is nothing to compare."""
    if operator is None or operator.weight is None:
        return None
    weight: Weight = operator.weight
    array = weight.read()
    if array.ndim < 2 or not array.size or array.dtype.kind in "OSUc":
        return None
    rows = np.moveaxis(array.astype(np.float64), weight.axis, 0)
    bias = None if weight.bias is None else weight.bias().astype(np.float64)
    return rows, bias


def _channels(rows: Array, bias: Array | None) -> Channels:
    largest = np.abs(rows).reshape(len(rows), -1).max(axis=1)
    quantiles = np.quantile(largest, (0, 0.25, 0.5, 0.75, 1))
    parts = np.array_split(largest, min(PROFILE, len(largest)))
    return Channels(
        rows.shape,
        tuple(float(value) for value in quantiles),
        tuple(float(part.max()) for part in parts),
        None if bias is None else float(np.max(np.abs(bias), initial=0.0)),
    )


def _factor(before: Array, after: Array) -> tuple[float, float] | None:
    one, two = (np.linalg.norm(rows.reshape(len(rows), -1), axis=1) for rows in (before, after))
    ratios = two[one > 0] / one[one > 0]
    return (float(ratios.min()), float(ratios.max())) if ratios.size else None


def _bias(before: Array | None, after: Array | None) -> str:
    if before is None or after is None:
        return "none" if before is after else "new" if before is None else "gone"
    return "same" if np.array_equal(before, after, equal_nan=True) else "changed"


def _short(value: float) -> float | None:
    """A number with as many digits as a report shows; None where it is not finite."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
