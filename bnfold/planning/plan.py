"""What will be done and why: one Site per BatchNorm, one Plan per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bnfold.fragment import html_table
from bnfold.planning.absorbers import absorbers
from bnfold.planning.conditioning import worst_site
from bnfold.planning.economy import settle
from bnfold.planning.leftover import splittable
from bnfold.planning.reach import Find, all_fits, make_room
from bnfold.planning.sharing import Allowance, Decision, copied, total_growth, with_copies
from bnfold.planning.unitranges import UnitRanges, unit_ranges
from bnfold.reasons import Reason
from bnfold.units.graph import Affine, Graph
from bnfold.units.laws import read_laws
from bnfold.units.solver import Solution, Solver
from bnfold.units.system import System
from bnfold.wording import LONGEST_LINE, listed, printable


@dataclass(frozen=True)
class Site:
    """One BatchNorm (or other per-channel affine) and what becomes of it.

    Attributes:
        name: The operator's name in the model.
        op: Its operator type, e.g. `"BatchNormalization"`.
        status: `"folded"` (its units were absorbed), `"merged"` (it went with a branch merge, or another BatchNorm that
            stays does the same) or `"kept"`.
        into: Names of the operators whose weights changed because of it.
        reason: Why it was kept; None when it was not.
        copies: Those of `into` that got a copy of a weight they shared, since its other readers need it in other units.
        units: In which units its two sides are measured afterwards; None where a merge or another graph took it.
    """

    name: str
    op: str
    status: str
    into: tuple[str, ...] = ()
    reason: Reason | None = None
    copies: tuple[str, ...] = ()
    units: UnitRanges | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The site as it stands in `--json`; `copies` and `units` only where there are any."""
        reason = None if self.reason is None else {"code": self.reason.code, "text": self.reason.text}
        more: dict[str, Any] = {"copies": list(self.copies)} if self.copies else {}
        if self.units is not None:
            more["units"] = self.units.to_dict()
        into = list(self.into)
        return {"name": self.name, "op": self.op, "status": self.status, "into": into, "reason": reason, **more}


@dataclass(frozen=True)
class Plan:
    """Every BatchNorm of a model with its fate, in graph order.

    Attributes:
        sites: The BatchNormalization call sites.
        affines: The other per-channel affines (Mul, Add, Sub, Div by constants).
        growth: Bytes that copies of shared weights add to the file.
        notes: What is not as one might expect of the result, in words.
    """

    sites: tuple[Site, ...]
    affines: tuple[Site, ...] = ()
    growth: int = 0
    notes: tuple[str, ...] = ()

    @property
    def batch_norms(self) -> int:
        """Number of BatchNormalization call sites in the unfolded graph."""
        return len(self.sites)

    @property
    def folded(self) -> int:
        """How many of them had their units absorbed."""
        return sum(site.status == "folded" for site in self.sites)

    @property
    def merged(self) -> int:
        """How many of them went with a branch merge."""
        return sum(site.status == "merged" for site in self.sites)

    @property
    def kept(self) -> int:
        """How many of them stay."""
        return sum(site.status == "kept" for site in self.sites)

    def to_dict(self) -> dict[str, Any]:
        """Counts and sites as they stand in `--json`."""
        return {
            "counts": {
                "batch_norms": self.batch_norms,
                "folded": self.folded,
                "merged": self.merged,
                "kept": self.kept,
                "affines": len(self.affines),
                "affines_folded": sum(site.status != "kept" for site in self.affines),
            },
            "sites": [site.to_dict() for site in self.sites],
        }

    def __str__(self) -> str:
        """The plan in a few lines: how many BatchNorms go, which stay and why, and what to know besides."""
        went = ", ".join(f"{n} {word}" for n, word in ((self.folded, "folded"), (self.merged, "merged")) if n)
        noun = "BatchNorm" if self.batch_norms == 1 else "BatchNorms"
        lines = [f"{self.batch_norms} {noun} → {self.kept}{f' ({went})' if went else ''}"]
        for reason in dict.fromkeys(site.reason for site in self.sites if site.reason is not None):
            names = [site.name for site in self.sites if site.reason is reason]
            lines.append(f"{len(names)} kept, {reason.code}: {reason.text}: {listed(names)}")
        return "\n".join(printable(line, LONGEST_LINE) for line in (*lines, *self.notes))

    def _repr_html_(self) -> str:
        """The plan in a notebook: what stays first."""
        rows = [
            (site.name, site.status, site.reason.code if site.reason else "", ", ".join(site.into))
            for site in sorted(self.sites, key=lambda site: site.status != "kept")
        ]
        title = f"{self.batch_norms} BatchNorms: {self.folded} folded, {self.merged} merged, {self.kept} kept"
        return html_table(title, ("BatchNorm", "fate", "reason", "into"), rows, "; ".join(self.notes))


@dataclass(frozen=True)
class Folding:
    """A plan together with the units that carry it out.

    Attributes:
        plan: What the user is told.
        graph: What was solved: the graph that was read, or one in which operators have copies of shared weights.
        system: The cells behind every operator's channels.
        solution: The unit of every cell.
    """

    plan: Plan
    graph: Graph
    system: System
    solution: Solution


def make_plan(
    graph: Graph,
    kept: Mapping[str, Reason] | None = None,
    order: Sequence[str] = (),
    leftover: str = "keep",
    allowance: Allowance | None = None,
    find: Find = all_fits,
) -> Folding:
    """Decide what becomes of every affine of a graph.

    Args:
        graph: The model as the solver sees it.
        kept: BatchNorms that are no constant affine (training mode, computed parameters), with the reason.
        order: Names of all sites in the model's own order; sites that it does not name come last.
        leftover: What a BatchNorm that stays is written as (`bnfold.planning.leftover`).
        allowance: What copies of shared weights may cost; None makes none.
        find: Names the views of the system whose new weights would not fit their dtype.

    Returns:
        The plan and the units. No weight has changed yet.
    """
    decision = decide(graph, leftover, find)
    if allowance is not None:
        decision = with_copies(decision, allowance, partial(decide, leftover=leftover, find=find))
    graph, system, solution = decision.graph, decision.system, decision.solution
    own = copied(decision)
    into, units = absorbers(system, solution), unit_ranges(system, solution)
    norms = [Site(name, "BatchNormalization", "kept", (), reason) for name, reason in (kept or {}).items()]
    others = []
    for op in graph.ops:
        if not isinstance(op, Affine):
            continue
        reason = solution.refused.get(op.name)
        if op.name not in solution.removed and reason is None:
            continue  # varies by position: an offset, not a per-channel affine
        if op.batch_norm:
            status = "kept" if reason is not None else "folded"
            changed = into.get(op.name, ())
            copies = tuple(name for name in changed if name in own)
            norms.append(Site(op.name, "BatchNormalization", status, changed, reason, copies, units.get(op.name)))
        else:
            others.append(Site(op.name, op.kind, "kept" if reason else "folded", into.get(op.name, ()), reason))
    rank = {name: i for i, name in enumerate(order)}
    norms.sort(key=lambda site: rank.get(site.name, len(rank)))
    grown = 0 if allowance is None else total_growth(decision, allowance)
    return Folding(Plan(tuple(norms), tuple(others), grown), graph, system, solution)


def decide(graph: Graph, leftover: str = "keep", find: Find = all_fits) -> Decision:
    """The units of a graph: solved, without what would cost precision or range, and without what gains nothing."""
    system = read_laws(graph)
    solver = Solver(system, splittable(system, graph, leftover))
    excluded: dict[str, Reason] = {}
    solution = _sound(graph, system, solver, excluded, find)
    settled = settle(graph, system, solver, solution, excluded)
    if settled is not solution and find(graph, system, settled).too_large:
        settled = solution
    return Decision(graph, system, settled)


def _sound(graph: Graph, system: System, solver: Solver, excluded: dict[str, Reason], find: Find) -> Solution:
    """A solution that costs neither precision nor range; affines that would are added to `excluded`."""
    while True:
        solution = solver.solve(excluded)
        worst = worst_site(system, solution, graph)
        if worst is None:
            solution, overflowing = make_room(system, solver, solution, excluded, partial(find, graph))
            if overflowing is None:
                return solution
            worst = overflowing, Reason.OVERFLOW
        excluded[worst[0]] = worst[1]
