"""Which operators took over an affine that vanished: those next to it whose weights changed."""

from __future__ import annotations

from bnfold.units.solver import Solution
from bnfold.units.system import System


def absorbers(system: System, solution: Solution) -> dict[str, tuple[str, ...]]:
    """For every affine that vanished, the operators next to it whose weights changed."""
    writers: dict[int, list[str]] = {}
    readers: dict[int, list[str]] = {}
    for name, (x, y) in system.views.items():
        for cells, index in ((x, readers), (y, writers)):
            for run in system.runs(cells):
                index.setdefault(run, []).append(name)
    changed = {
        name
        for name, (x, y) in system.views.items()
        if (name in system.weights or name in solution.refused) and (solution.touches(x) or solution.touches(y))
    }
    result: dict[str, tuple[str, ...]] = {}
    for candidate in system.candidates:
        name = candidate.op.name
        if name not in solution.removed:
            continue
        found: dict[str, None] = {}
        _collect(name, writers, 0, system, solution, changed, found)
        _collect(name, readers, 1, system, solution, changed, found)
        result[name] = tuple(found)
    return result


def _collect(
    start: str,
    index: dict[int, list[str]],
    side: int,
    system: System,
    solution: Solution,
    changed: set[str],
    found: dict[str, None],
) -> None:
    """Walk away from a site in one direction, through vanished affines and one sum, to operators with new weights."""
    seen = {start}
    queue = [(start, 0)]
    while queue:
        name, sums = queue.pop(0)
        for run in system.runs(system.views[name][side]):
            for other in index.get(run, ()):
                if other in seen:
                    continue
                seen.add(other)
                if other in changed:
                    found[other] = None
                elif other in solution.removed:
                    queue.append((other, sums))
                elif other in system.sums and sums == 0:
                    queue.append((other, 1))
