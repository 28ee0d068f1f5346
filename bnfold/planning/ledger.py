"""The fate of every site over several rounds: a merge may let a BatchNorm fold, a fold may let branches merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bnfold.branches.search import MergedSum
from bnfold.planning.plan import Plan, Site
from bnfold.units.graph import Affine, Graph, Linear


class Ledger:
    """What has become of the sites of one graph so far.

    Attributes:
        order: Where each site stands in the graph as it was.
        growth: Bytes that copies of shared weights have added.
    """

    def __init__(self, norms: Sequence[str], graph: Graph) -> None:
        self.order = {name: i for i, name in enumerate((*norms, *(op.name for op in graph.ops)))}
        self.growth = 0
        self._norms: dict[str, Site] = {}
        self._affines: dict[str, Site] = {}
        self._renamed: dict[str, str] = {}

    def merged(
        self, sums: Sequence[MergedSum], graph: Graph, places: Mapping[tuple[str, ...], str] | None = None
    ) -> None:
        """Note branch merges.

        Args:
            sums: What was merged.
            graph: Where it was.
            places: For the operators of a merge, the one that became the result, if it is not the one that multiplies
                most.
        """
        ops = {op.name: op for op in graph.ops}
        for merge in (merge for merged in sums for merge in merged.merges):
            main = (places or {}).get(merge.names, merge.box.main.name)
            for op in (ops[name] for name in merge.names):
                if isinstance(op, Affine):
                    index = self._norms if op.batch_norm else self._affines
                    kind = "BatchNormalization" if op.batch_norm else op.kind
                    index[op.name] = Site(op.name, kind, "merged", (main,))
                elif isinstance(op, Linear) and op.name != main:
                    self._renamed[op.name] = main

    def folded(self, plan: Plan) -> None:
        """Note a plan that was carried out; operators that it made itself are no sites."""
        self.growth += plan.growth
        self._norms |= {site.name: self._as_first_seen(site) for site in plan.sites}
        known = self.order.keys() - self._norms.keys()  # what a BatchNorm was written as has its name
        self._affines |= {site.name: site for site in plan.affines if site.name in known}

    def _as_first_seen(self, site: Site) -> Site:
        """A BatchNorm that stays still, with the reason it had when the others were there that stood in its way."""
        known = self._norms.get(site.name)
        if known is None or known.reason is None or site.reason is None:
            return site
        return replace(site, reason=known.reason)

    def same(self, norm: str, other: str) -> None:
        """Note that a BatchNorm that stayed went, because another one does the same."""
        self._norms[norm] = replace(self._norms[norm], status="merged", into=(other,), reason=None)

    def plan(self, before: Sequence[Site] = ()) -> Plan:
        """Everything, in the graph's own order, with operators by the names they have now.

        Args:
            before: Sites that were gone before the graph was read.
        """
        found = []
        for index in (self._norms, self._affines):
            sites = sorted(index.values(), key=lambda site: self.order[site.name])
            found.append(tuple(self._renewed(site) for site in sites))
        norms, affines = found
        return Plan((*before, *norms), affines, self.growth)

    def _renewed(self, site: Site) -> Site:
        return replace(site, into=self._current(site.into), copies=self._current(site.copies))

    def _current(self, names: Sequence[str]) -> tuple[str, ...]:
        current: dict[str, None] = {}
        for name in names:
            while name in self._renamed:
                name = self._renamed[name]
            current[name] = None
        return tuple(current)
