"""Where a new weight would not be finite as it is stored, another unit is tried, then the affine behind it stays.

float16 ends at 65,504, so a chain of scales that nobody would notice in float32 leaves it. A class of tensors that
nothing ties to the ground has a free scale, which usually goes where most weights keep their bytes (`solver`). Where
that does not fit it is put in the middle instead: the largest and the smallest unit of the class are then equally far
from 1, so a factor of 10^6 between two convolutions becomes 10^3 in each. What is still too large is kept. What is too
small is not: it is as small in the original, whose own activations leave the range there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bnfold.reasons import Reason
from bnfold.units.graph import Graph
from bnfold.units.solver import Solution, Solver
from bnfold.units.system import Candidate, System

SAFE_GAIN = 2.0**40  # weights of any trained float32 model times this are still finite


@dataclass(frozen=True)
class Misfits:
    """Views of a system whose new weights would not fit the dtype they are stored in.

    Attributes:
        too_large: Some would not be finite.
        too_small: All would lose their bits to the end of the range near 0.
    """

    too_large: tuple[str, ...] = ()
    too_small: tuple[str, ...] = ()


Find = Callable[[Graph, System, Solution], Misfits]


def all_fits(graph: Graph, system: System, solution: Solution) -> Misfits:
    """The answer of a front end whose dtype has no end."""
    return Misfits()


def is_tame(solution: Solution) -> bool:
    """Whether no unit is so extreme that a weight of any trained float32 model could overflow."""
    gain = np.abs(solution.scale).max(initial=0.0) * np.abs(solution.inverse_scale).max(initial=0.0)
    shift = max(np.abs(solution.shift).max(initial=0.0), np.abs(solution.inverse_shift).max(initial=0.0))
    return bool(gain < SAFE_GAIN and shift < SAFE_GAIN)


def make_room(
    system: System,
    solver: Solver,
    solution: Solution,
    excluded: Mapping[str, Reason],
    find: Callable[[System, Solution], Misfits],
) -> tuple[Solution, str | None]:
    """Balance the classes whose weights do not fit.

    Args:
        system: What the laws say.
        solver: The solver of that system; it keeps to the balance from now on.
        solution: Its solution.
        excluded: Affines that must stay.
        find: Names the views whose new weights would not fit their dtype.

    Returns:
        A solution with the same affines removed, and the affine to keep if there is still something that does not fit.
    """
    while True:
        misfits = find(system, solution)
        asked = [solver.balance(system.views[view]) for view in (*misfits.too_large, *misfits.too_small)]
        if not any(asked):
            return solution, _nearest(system, solution, misfits.too_large[0]) if misfits.too_large else None
        solution = solver.solve(excluded)


def _nearest(system: System, solution: Solution, view: str) -> str | None:
    """The vanished affine with the most extreme numbers, if possible one that leads to a view through others."""
    touched = set(system.runs(np.concatenate(system.views[view])))
    far = [c for c in system.candidates if c.op.name in solution.removed]
    near: list[Candidate] = []
    found = True
    while found:
        runs = [set(system.runs(np.concatenate([c.x, c.y]))) for c in far]
        found = any(touched & own for own in runs)
        near += [c for c, own in zip(far, runs, strict=True) if touched & own]
        far = [c for c, own in zip(far, runs, strict=True) if not touched & own]
        touched.update(*(system.runs(np.concatenate([c.x, c.y])) for c in near))
    worst = max(near or far, key=_extremity, default=None)
    return None if worst is None else worst.op.name


def _extremity(candidate: Candidate) -> float:
    """How many powers of two an affine's numbers are away from those that do nothing."""
    with np.errstate(divide="ignore"):
        scales = np.abs(np.log2(np.abs(candidate.scale[candidate.scale != 0])))
        shifts = np.log2(np.abs(candidate.shift))
    return max(float(scales.max(initial=0.0)), float(shifts.max(initial=0.0)))
