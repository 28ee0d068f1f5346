"""Where a change of units would cost precision, the affine behind it stays.

A shift of `T` on a tensor with standard deviation σ costs about `log2(1 + |T|/σ)` bits of every value stored there. It
is judged with BatchNorm's own statistics: its input has `σ = sqrt(running_var + eps)`, its output `|gamma|`. Only
tensors that something other than a vanished affine still reads are judged: behind `Conv → BN` the convolution now
computes what the BatchNorm computed, so its own old unit is nobody's concern.

A quarter of the significand may be spent: `|T|/σ ≤ 2^(bits/4)`, which is 64 in float32. A bit lost in a stream is a
bit lost in all that reads it, and several shifts meet there: at a third, 256 in float32, errors of collapsed networks
were four times those of the original.
"""

from __future__ import annotations

import numpy as np

from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.graph import Graph
from bnfold.units.solver import Solution
from bnfold.units.system import GROUND, Candidate, System


def largest_shift(graph: Graph) -> float:
    """The shift that a tensor may get, in its standard deviations."""
    return float(2.0 ** (graph.precision / 4))


def worst_site(system: System, solution: Solution, graph: Graph) -> tuple[str, Reason] | None:
    """The vanished affine that does most harm, with the reason to keep it; None where all is well."""
    judged = [c for c in system.candidates if c.op.name in solution.removed and c.spread is not None]
    if not judged:
        return None
    costs = _costs(judged, system, solution)
    worst = int(np.argmax(costs))
    limit = largest_shift(graph)
    return (judged[worst].op.name, Reason.ILL_CONDITIONED) if costs[worst] > limit else None


def _costs(candidates: list[Candidate], system: System, solution: Solution) -> Array:
    """The largest `|T|/σ` on the two sides of each affine, over the channels that are still read."""
    read = np.zeros(system.size, dtype=np.bool_)
    kept = [c.x for c in system.candidates if c.op.name not in solution.removed]
    for cells in (*system.read, *kept):
        read[cells] = True
    read[:GROUND] = False
    scale = np.concatenate([c.scale for c in candidates])
    spread = np.concatenate([c.spread for c in candidates if c.spread is not None])
    x, y = (np.concatenate([getattr(c, side) for c in candidates]) for side in ("x", "y"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.abs([solution.shift[x], solution.shift[y]]) / [spread, np.abs(scale) * spread]
    judged = np.stack([read[x], read[y]]) & (scale != 0) & ~np.isnan(ratios)
    ratio = np.where(judged, ratios, 0.0).max(axis=0)
    sizes = [c.x.size for c in candidates]
    return np.asarray(np.maximum.reduceat(ratio, np.cumsum([0, *sizes[:-1]])))
