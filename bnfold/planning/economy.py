"""What gains nothing stays untouched.

A BatchNorm is worth removing even if a multiplication nearby becomes a multiplication and an addition. Other affines
are removed to save operators, so where taking them out makes their neighbours grow by as many, they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.reasons import Reason
from bnfold.units.affine import Array, Unit, rewrite
from bnfold.units.graph import Graph, Linear
from bnfold.units.solver import Solution, Solver
from bnfold.units.system import Candidate, System

ROUNDING = 1e-12


def between_units(candidate: Candidate, reader: Unit, writer: Unit) -> tuple[Array, Array]:
    """The scale and shift that an affine must have between new units, float64[n] each.

    What differs from 1 or 0 by rounding alone is 1 or 0, so that an affine that does nothing is seen to do nothing.
    """
    scale = candidate.scale * reader.scale * writer.inverse_scale
    scale = np.where(np.abs(scale - 1.0) <= ROUNDING, 1.0, scale)
    terms = (
        writer.inverse_scale * candidate.scale * reader.shift,
        writer.inverse_scale * candidate.shift,
        writer.inverse_shift,
    )
    size = np.max(np.abs(terms), axis=0)
    shift: Array = np.sum(terms, axis=0)
    return scale, np.where(np.abs(shift) <= ROUNDING * size, 0.0, shift)


def settle(
    graph: Graph, system: System, solver: Solver, solution: Solution, excluded: Mapping[str, Reason]
) -> Solution:
    """Put back affines whose removal saves no operator.

    Args:
        graph: The model as the solver sees it.
        system: What the laws say about it.
        solver: The solver of that system.
        solution: Its solution.
        excluded: Affines that must stay in any case.

    Returns:
        A solution with the same BatchNorms removed and no more operators left.
    """
    kept_back = dict(excluded)
    bare: dict[int | None, list[Linear]] = {}
    for op in graph.ops:
        if isinstance(op, Linear) and not op.bias_slot and op.name in system.views:
            bare.setdefault(solver.component_of(system.views[op.name][1]), []).append(op)
    for number, component in solver.components().items():
        others = [c for c in component if not c.op.batch_norm and not c.op.within]
        counted = others + [c for c in component if c.op.name in solver.split]
        linears = bare.get(number, [])
        if not any(c.op.name in solution.removed for c in others):
            continue
        if _total(others, linears, system, solution) == sum(c.op.name not in solution.removed for c in others):
            continue  # nothing has grown
        trial = {**{c.op.name: solution.refused.get(c.op.name, Reason.NONLINEAR) for c in others}, **kept_back}
        other = solver.solve(trial)
        norms = {c.op.name for c in component if c.op.batch_norm}
        cost, now = (_total(counted, linears, system, s) for s in (other, solution))
        if norms & solution.removed == norms & other.removed and cost <= now:
            kept_back, solution = trial, other
    return solution


def _total(candidates: list[Candidate], linears: list[Linear], system: System, solution: Solution) -> int:
    """Operators that affines and added biases of one component take."""
    total = 0
    for candidate in candidates:
        if candidate.op.name not in solution.removed:
            x, y = system.views[candidate.op.name]
            scale, shift = between_units(candidate, solution.unit(x), solution.unit(y))
            total += max(1, int(bool(np.any(scale != 1))) + int(bool(np.any(shift != 0))))
    for op in linears:
        reader, writer = (solution.unit(cells) for cells in system.views[op.name])
        if np.any(reader.shift != 0) or np.any(writer.inverse_shift != 0):
            _, bias = rewrite(op.kernel, None, reader, writer)
            total += int(bool(bias.any()))
    return total
