"""Do the statistics that BatchNorms store still describe the data they get?

For a channel with stored mean μ and variance v, and mean m and variance w over the data, with the BatchNorm's own eps,

    mean shift   |m − μ| / √(v + eps)              in standard deviations
    spread       ½·|ln((w + eps) / (v + eps))|     the logarithm of the ratio of the standard deviations
    drift        the larger of both; of a layer: the root mean square over its channels

A layer has drifted when its drift is above `√(TOLERANCE² + NOISE²/n)` for n rows of data:

* NOISE/√n. The mean of n independent rows has a standard error of σ/√n, the logarithm of their standard deviation one
  of about 1/√(2n). The positions of an image are not independent, so they do not count as rows. Three standard errors
  is the usual bound for noise, and a root mean square over many channels seldom comes near it. Independent errors add
  as squares.
* TOLERANCE, ⅛. In training a BatchNorm normalises with the statistics of a mini-batch. Those of 64 rows are off by an
  eighth of a standard deviation from those of the whole set, at every step, and networks learn in spite of it; what
  stays below that is within what training made the network used to. (Smaller mini-batches are further off.)

A root mean square hides a single channel among many; the worst channel is reported beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.data.batches import Dataset
from bnfold.errors import UnsupportedError

if TYPE_CHECKING:
    import onnx_ir

    from bnfold.statistics.normstats import Seen
    from bnfold.statistics.probes import Norm

TOLERANCE = 0.125
NOISE = 3.0


@dataclass(frozen=True)
class Layer:
    """One BatchNorm.

    Attributes:
        name: Its name.
        channels: How many channels it has.
        drift: The root mean square over them.
        mean_shift: The root mean square of the first part alone.
        spread: The root mean square of the second part alone.
        worst_channel: Which channel drifted most.
        worst: By how much.
    """

    name: str
    channels: int
    drift: float
    mean_shift: float
    spread: float
    worst_channel: int
    worst: float

    def to_dict(self) -> dict[str, Any]:
        """The layer as it stands in `--json`; a number that is not finite is null."""
        return {name: finite(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Drift:
    """How far the stored statistics are from those of the data.

    Attributes:
        data: Where the rows came from.
        n: How many there were.
        layers: Every BatchNorm, the worst first.
        notes: Which BatchNorms were not looked at.
    """

    data: str
    n: int
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    @property
    def limit(self) -> float:
        """The drift from which a layer counts as drifted."""
        return math.hypot(TOLERANCE, NOISE / math.sqrt(self.n))

    @property
    def worst(self) -> float:
        """The drift of the worst layer."""
        return self.layers[0].drift

    @property
    def channel(self) -> float:
        """The drift of the worst channel of all."""
        return max(layer.worst for layer in self.layers)

    @property
    def drifted(self) -> int:
        """How many layers have drifted."""
        return sum(layer.drift > self.limit for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as it stands in `--json`."""
        return {
            "data": self.data,
            "n": self.n,
            "limit": self.limit,
            "drifted": self.drifted,
            "worst": finite(self.worst),
            "channel": finite(self.channel),
            "layers": [layer.to_dict() for layer in self.layers],
        }


def drift(model: onnx_ir.Model, data: Dataset, progress: Callable[[float | None], None] | None = None) -> Drift:
    """Compares the statistics of every BatchNorm of an unfolded model with those of data, in one pass.

    Args:
        model: The model, not changed.
        data: The data set; labels are not needed.
        progress: Called with the part done.

    Raises:
        UnsupportedError: There is no BatchNorm to look at, or onnxruntime does not run the model.
        UsageError: The rows are not what the model takes.
        UnreadableError: The data is damaged.
    """
    from bnfold.statistics.normstats import collect, find_norms, inlined

    model = inlined(model)
    norms, notes = find_norms(model)
    if not norms:
        raise UnsupportedError(
            "the model has no BatchNorm whose statistics could be compared", "Give the model as it was before folding."
        )
    seen, rows = collect(model, norms, data, progress)
    layers = [layer_of(norm, seen[norm.output]) for norm in norms]
    return Drift(data.name, rows, tuple(sorted(layers, key=lambda layer: -layer.drift)), notes)


def layer_of(norm: Norm, seen: Seen) -> Layer:
    """One BatchNorm's drift from what it saw."""
    stored = seen.variance + norm.eps
    with np.errstate(all="ignore"):  # a stored NaN, or a variance of 0 or less with no eps, is as far off as can be
        shift = np.abs(seen.moments.mean - seen.mean) / np.sqrt(stored)
        spread = np.abs(np.log((seen.moments.variance + norm.eps) / stored)) / 2
    shift, spread = (np.where(np.isfinite(part), part, np.inf) for part in (shift, spread))
    channels = np.maximum(shift, spread)
    worst = int(np.argmax(channels))
    return Layer(norm.name, len(channels), _rms(channels), _rms(shift), _rms(spread), worst, float(channels[worst]))


def finite(value: Any) -> Any:
    """A number for `--json`: None where it is infinite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
