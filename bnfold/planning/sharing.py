"""One stored weight behind several operators: whether to give some of them a copy.

Operators that share a weight must agree on its units, since `W·S_in / S_out` is stored once. This ties their scales,
and a BatchNorm that demands another one stays. A detector's head that runs on five levels with BatchNorms of its own on
each is such a case: the tie costs four of every five.

A copy cuts the tie and makes the file larger. So the graph is solved with all ties first, and where BatchNorms stayed
once more with none; then each weight that did not help is shared again, and those that help least per byte until what
the file grows by is allowed. Operators whose units came out equal go on sharing: only versions that differ are stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnfold.errors import UsageError
from bnfold.reasons import Reason
from bnfold.units.affine import Unit
from bnfold.units.graph import Graph, Linear, Op, Recurrent
from bnfold.units.solver import Solution
from bnfold.units.system import System
from bnfold.wording import guess

DUPLICATE = ("never", "auto", "always")
GROWTH, GROWTH_BYTES = 0.05, 1_000_000  # what `auto` allows: the larger of this part of the weights, and this

Version = tuple[bytes, bytes]


@dataclass(frozen=True)
class Own:
    """The identity of a copy that belongs to one operator.

    Attributes:
        stored: Identity of the weight it is a copy of.
        name: The operator.
        stays: Whether the stored weight stays as it is for a reader of another kind.
    """

    stored: Hashable
    name: str
    stays: bool


@dataclass(frozen=True)
class Allowance:
    """What copies may cost.

    Attributes:
        nbytes: Bytes of a stored weight.
        left: Gives the bytes that the file may still grow by; asked only where copies would help.
    """

    nbytes: Callable[[Hashable], int]
    left: Callable[[], float]


def budget_bytes(duplicate: str, stored_bytes: int) -> float:
    """What a model of some size may grow by.

    Args:
        duplicate: `"never"`, `"auto"` or `"always"`.
        stored_bytes: Of all its weights.

    Raises:
        UsageError: It is none of them.
    """
    budgets = (0.0, max(GROWTH * stored_bytes, GROWTH_BYTES), math.inf)
    if duplicate not in DUPLICATE:
        raise UsageError(
            f"weights can be copied {', '.join(DUPLICATE[:-1])} or {DUPLICATE[-1]}, not {duplicate!r}",
            f"{guess(duplicate, DUPLICATE)}Pass --duplicate auto, or leave it out.",
        )
    return budgets[DUPLICATE.index(duplicate)]


@dataclass(frozen=True)
class Decision:
    """A graph and the units decided for it."""

    graph: Graph
    system: System
    solution: Solution

    @property
    def norms_gone(self) -> int:
        """BatchNorms that vanish."""
        return sum(c.op.batch_norm and c.op.name in self.solution.removed for c in self.system.candidates)

    @property
    def norms_stay(self) -> bool:
        """Whether one was refused."""
        return self.norms_gone < sum(c.op.batch_norm for c in self.system.candidates)


def with_copies(first: Decision, allowance: Allowance, decide: Callable[[Graph], Decision]) -> Decision:
    """The same graph with copies of shared weights, where they remove BatchNorms and are allowed.

    Args:
        first: What was decided with every weight shared as it is stored.
        allowance: What copies may cost.
        decide: Solves a graph.

    Returns:
        `first`, or a decision for a graph in which some operators have a weight of their own (`Own`).
    """
    graph = first.graph
    weights = shared_weights(graph)
    if not weights or not first.norms_stay or (budget := allowance.left()) <= 0:
        return first
    chosen = set(weights)
    best = decide(cut(graph, chosen))
    if best.norms_gone <= first.norms_gone:
        return first
    worth: dict[Hashable, float] = {}
    for stored in sorted(weights, key=lambda w: growth(best, w, allowance), reverse=True):
        trial = decide(cut(graph, chosen - {stored}))
        if trial.norms_gone == best.norms_gone:
            chosen, best = chosen - {stored}, trial
        else:
            worth[stored] = (best.norms_gone - trial.norms_gone) / max(1, growth(best, stored, allowance))
    while chosen and total_growth(best, allowance) > budget:
        chosen.remove(min((w for w in weights if w in chosen), key=lambda w: worth[w]))
        best = decide(cut(graph, chosen))
    return best if best.norms_gone > first.norms_gone else first


def shared_weights(graph: Graph) -> list[Hashable]:
    """Identities of stored weights that tie operators to one another, or to a reader of another kind."""
    uses: dict[Hashable, int] = {}
    for op in graph.ops:
        if isinstance(op, (Linear, Recurrent)) and op.frozen in (None, Reason.SHARED_WEIGHT):
            others = op.frozen is not None
            uses[op.weight] = uses.get(op.weight, 0) + 1 + others
    return [stored for stored, count in uses.items() if count > 1]


def cut(graph: Graph, weights: set[Hashable]) -> Graph:
    """The same graph, in which the readers of some weights have one each."""

    def alone(op: Op) -> Op:
        if not isinstance(op, (Linear, Recurrent)) or op.weight not in weights:
            return op
        return replace(op, weight=Own(op.weight, op.name, op.frozen is not None), frozen=None)

    return replace(graph, ops=tuple(alone(op) for op in graph.ops)) if weights else graph


def total_growth(decision: Decision, allowance: Allowance) -> int:
    """Bytes that all copies add to the file."""
    return sum(growth(decision, stored, allowance) for stored in {own.stored for own in owners(decision.graph)})


def growth(decision: Decision, stored: Hashable, allowance: Allowance) -> int:
    """Bytes that the copies of one weight add to the file."""
    own = [weight for weight in owners(decision.graph) if weight.stored == stored]
    return len(set(_versions(decision, own).values())) * allowance.nbytes(stored)


def copied(decision: Decision) -> frozenset[str]:
    """The operators whose weight is stored besides the one that they shared."""
    groups: dict[Hashable, list[Own]] = {}
    for own in owners(decision.graph):
        groups.setdefault(own.stored, []).append(own)
    return frozenset(name for group in groups.values() for name in _versions(decision, group))


def owners(graph: Graph) -> Iterator[Own]:
    """The weights that belong to one operator each, in graph order."""
    for op in graph.ops:
        if isinstance(op, (Linear, Recurrent)) and isinstance(op.weight, Own):
            yield op.weight


def version(reader: Unit, writer: Unit) -> Version:
    """What a weight becomes, as something that tells versions of it apart: `W·S_in / S_out`."""
    return reader.scale.tobytes(), writer.inverse_scale.tobytes()


def _versions(decision: Decision, group: Sequence[Own]) -> dict[str, Version]:
    """For the readers of one weight, what tells their versions of it apart; without those of the version stored first.

    A version that is the weight as it was is stored already.
    """
    versions: dict[str, Version] = {}
    stays = any(own.stays for own in group)
    for own in group:
        view = decision.system.views.get(own.name)
        reader, writer = (None, None) if view is None else (decision.solution.unit(cells) for cells in view)
        if reader is None or writer is None or (np.all(reader.scale == 1) and np.all(writer.inverse_scale == 1)):
            stays = True  # as it was; without a view, it mixes positions and lets units pass
        else:
            versions[own.name] = version(reader, writer)
    first = None if stays else next(iter(versions.values()), None)
    return {name: version for name, version in versions.items() if version != first}
