"""Where a change of units would cost precision or range, the affine behind it stays.

A shift of `T` on a tensor with standard deviation σ costs about `log2(1 + |T|/σ)` bits of every value stored there. It
is judged with BatchNorm's own statistics: its input has `σ = sqrt(running_var + eps)`, its output `|gamma|`. Only
tensors that something other than a vanished affine still reads are judged: behind `Conv → BN` the convolution now
computes what the BatchNorm computed, so its own old unit is nobody's concern.

A third of the significand may be spent: `|T|/σ ≤ 2^(bits/3)`, which is 256 in float32.
"""

from __future__ import annotations

import numpy as np

from bnfold.affine import Array, rewrite
from bnfold.graph import Graph, Linear
from bnfold.layout import Cells
from bnfold.reasons import Reason
from bnfold.solver import Solution
from bnfold.system import GROUND, Candidate, System

SAFE_GAIN = 2.0**40  # weights of any trained float32 model times this are still finite


def worst_site(system: System, solution: Solution, graph: Graph) -> tuple[str, Reason] | None:
    """The vanished affine that does most harm, with the reason to keep it; None where all is well."""
    overflow = _overflow(system, solution, graph)
    if overflow is not None:
        return overflow, Reason.OVERFLOW
    judged = [c for c in system.candidates if c.op.name in solution.removed and c.spread is not None]
    if not judged:
        return None
    costs = _costs(judged, system, solution)
    worst = int(np.argmax(costs))
    limit = 2.0 ** (graph.precision / 3)
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


def _overflow(system: System, solution: Solution, graph: Graph) -> str | None:
    """An affine next to a weight that would not be finite in its stored dtype."""
    if graph.precision >= 24 and _is_tame(solution):
        return None
    for op in graph.ops:
        if not isinstance(op, Linear) or op.name not in system.views:
            continue
        view = system.views[op.name]
        if not any(solution.touches(cells) for cells in view):
            continue
        reader, writer = (solution.unit(cells) for cells in view)
        gain = np.abs(reader.scale).max(initial=0.0) * np.abs(writer.inverse_scale).max(initial=0.0)
        shift = max(np.abs(reader.shift).max(initial=0.0), np.abs(writer.inverse_shift).max(initial=0.0))
        if graph.precision >= 24 and gain < SAFE_GAIN and shift < SAFE_GAIN:
            continue
        weight, bias = rewrite(op.kernel, None, reader, writer)
        with np.errstate(over="ignore"):
            finite = (
                np.isfinite(weight.astype(np.float64)).all()
                and np.isfinite(bias.astype(weight.dtype).astype(np.float64)).all()
            )
        if not finite:
            name = _nearest(system, solution, system.views[op.name])
            if name is not None:
                return name
    return None


def _is_tame(solution: Solution) -> bool:
    """Whether no unit is so extreme that a weight of any trained float32 model could overflow."""
    gain = np.abs(solution.scale).max(initial=0.0) * np.abs(solution.inverse_scale).max(initial=0.0)
    shift = max(np.abs(solution.shift).max(initial=0.0), np.abs(solution.inverse_shift).max(initial=0.0))
    return bool(gain < SAFE_GAIN and shift < SAFE_GAIN)


def _nearest(system: System, solution: Solution, view: tuple[Cells, Cells]) -> str | None:
    """The vanished affine with the most extreme scale among those in the unit classes of an operator."""
    touched = set(system.runs(np.concatenate(view)))
    best, extreme = None, -1.0
    for candidate in system.candidates:
        if candidate.op.name not in solution.removed:
            continue
        near = bool(touched & set(system.runs(np.concatenate([candidate.x, candidate.y]))))
        with np.errstate(divide="ignore"):
            size = float(np.abs(np.log2(np.abs(candidate.scale[candidate.scale != 0]))).max(initial=0.0))
        if size + (1e6 if near else 0.0) > extreme:
            best, extreme = candidate.op.name, size + (1e6 if near else 0.0)
    return best
