"""Mean and variance of a stream, in float64, without keeping it.

Two parts of a stream with (n, mean, M2), M2 = Σ(x − mean)², go together as

    n = n_a + n_b      δ = mean_b − mean_a      mean = mean_a + δ·n_b/n      M2 = M2_a + M2_b + δ²·n_a·n_b/n

(Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances"). It does not
cancel, as Σx² − (Σx)²/n does, and the result depends on how the stream was cut into batches by rounding only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """What is known of the values of every channel.

    Attributes:
        count: Values per channel.
        mean: float64[C].
        m2: float64[C], the sum of squared distances from the mean.
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Moments:
        """Of an array [N, C, ...], over every axis but the second, in two passes."""
        wide = np.moveaxis(np.asarray(values), 1, 0).reshape(values.shape[1], -1).astype(np.float64)
        if wide.shape[1] == 0:
            return cls(0, np.zeros(len(wide)), np.zeros(len(wide)))
        mean = wide.mean(axis=1)
        return cls(wide.shape[1], mean, np.square(wide - mean[:, None]).sum(axis=1))

    @property
    def variance(self) -> NDArray[np.float64]:
        """float64[C], of the population (divided by the count)."""
        return self.m2 / max(self.count, 1)

    def merge(self, other: Moments) -> Moments:
        """Both parts of a stream together."""
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        step = other.mean - self.mean
        return Moments(
            count,
            self.mean + step * (other.count / count),
            self.m2 + other.m2 + np.square(step) * (self.count * other.count / count),
        )
