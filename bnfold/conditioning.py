"""Where a change of units would cost precision or range, the affine behind it stays.

A shift of `T` on a tensor with standard deviation σ costs about `log2(1 + |T|/σ)` bits of every value stored there. It
is judged with BatchNorm's own statistics: its input has `σ = sqrt(running_var + eps)`, its output `|gamma|`. Only
tensors that something other than a vanished affine still reads are judged: behind `Conv → BN` the convolution now
computes what the BatchNorm computed, so its own old unit is nobody's concern.

A third of the significand may be spent: `|T|/σ ≤ 2^(bits/3)`, which is 256 in float32.
"""

from __future__ import annotations

import numpy as np

from bnfold.affine import rewrite
from bnfold.graph import Graph, Linear
from bnfold.layout import Cells
from bnfold.reasons import Reason
from bnfold.solver import Solution
from bnfold.system import GROUND, Candidate, System
from bnfold.window import Mask

SAFE_GAIN = 2.0**40  # weights of any trained float32 model times this are still finite


def worst_site(system: System, solution: Solution, graph: Graph) -> tuple[str, Reason] | None:
    """The vanished affine that does most harm, with the reason to keep it; None where all is well."""
    overflow = _overflow(system, solution, graph)
    if overflow is not None:
        return overflow, Reason.OVERFLOW
    limit = 2.0 ** (graph.precision / 3)
    read = np.zeros(system.size, dtype=np.bool_)
    for cells in system.read:
        read[cells] = True
    for candidate in system.candidates:
        if candidate.op.name not in solution.removed:
            read[candidate.x] = True
    worst, cost = None, limit
    for candidate in system.candidates:
        if candidate.op.name in solution.removed and candidate.spread is not None:
            here = _cost(candidate, solution, read)
            if here > cost:
                worst, cost = candidate.op.name, here
    return None if worst is None else (worst, Reason.ILL_CONDITIONED)


def _cost(candidate: Candidate, solution: Solution, read: Mask) -> float:
    """The largest `|T|/σ` on the two sides of an affine, over the channels that are still read."""
    assert candidate.spread is not None
    result = 0.0
    for cells, spread in ((candidate.x, candidate.spread), (candidate.y, np.abs(candidate.scale) * candidate.spread)):
        judged = read[cells] & (cells >= GROUND) & (candidate.scale != 0)
        if judged.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.abs(solution.shift[cells[judged]]) / spread[judged]
            result = max(result, float(np.nanmax(np.where(np.isnan(ratio), 0.0, ratio))))
    return result


def _overflow(system: System, solution: Solution, graph: Graph) -> str | None:
    """An affine next to a weight that would not be finite in its stored dtype."""
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
