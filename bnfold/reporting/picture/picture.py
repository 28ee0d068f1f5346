"""The graphs before and after a fold side by side: what became of each operator, and how its weights changed.

Operators of the two graphs belong together by name, or else where they are of one type and their results have one name.

    before   folded, merged, kept (sites of the plan) · changed (its weights) · gone · same
    after    kept · changed · new · same
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnfold.planning.plan import Plan, Site
from bnfold.reporting.picture.views import Operator, View
from bnfold.reporting.picture.weights import WeightChange, compared


@dataclass(frozen=True)
class Node:
    """An operator as it is drawn.

    Attributes:
        operator: What it is.
        status: What became of it, or where it came from.
        was: The name of the same operator before, for one after.
    """

    operator: Operator
    status: str
    was: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `--json`, without what is empty."""
        drawn = {"name": self.operator.name, "op": self.operator.op, "status": self.status}
        was = "" if self.was == self.operator.name else self.was
        lists = {"path": list(self.operator.path), "reads": list(self.operator.reads)}
        more: dict[str, Any] = {**lists, "shape": self.operator.shape, "was": was}
        return drawn | {key: value for key, value in more.items() if value}


@dataclass(frozen=True)
class Picture:
    """What a report draws.

    Attributes:
        before: The operators of the model before.
        after: Those of the model after; None where there is only one.
        weights: Its linear operators, those of the model after last where they are new.
    """

    before: tuple[Node, ...]
    after: tuple[Node, ...] | None
    weights: tuple[WeightChange, ...]

    def to_dict(self) -> dict[str, Any]:
        """The picture as it stands in `--json`."""
        return {
            "before": [node.to_dict() for node in self.before],
            "after": None if self.after is None else [node.to_dict() for node in self.after],
            "weights": [weight.to_dict() for weight in self.weights],
        }


def draw(before: View, after: View | None, plan: Plan | None) -> Picture:
    """Compares two graphs operator by operator.

    Args:
        before: The model before.
        after: The model after; None draws the first alone.
        plan: What became of the BatchNorms; None where that is not known, as for a fold of another tool.
    """
    sites = {} if plan is None else {site.name: site for site in (*plan.sites, *plan.affines)}
    if after is None:
        drawn = tuple(Node(op, sites[op.name].status if op.name in sites else "same") for op in before.operators)
        return Picture(drawn, None, tuple(filter(None, (compared(op, op) for op in before.operators))))
    was = _counterparts(before.operators, after.operators)
    theirs = {was[op.name]: op for op in after.operators if op.name in was}
    pairs = [(op, theirs.get(op.name)) for op in before.operators]
    pairs += [(None, op) for op in after.operators if op.name not in was]  # type: ignore[misc]
    weights = tuple(filter(None, (compared(one, two) for one, two in pairs)))
    changed = {weight.name for weight in weights if weight.changed}
    drawn = tuple(Node(op, _fate(op, sites, theirs, changed)) for op in before.operators)
    new = tuple(Node(op, _origin(op, sites, was, changed), was.get(op.name, "")) for op in after.operators)
    return Picture(drawn, new, weights)


def _counterparts(before: Sequence[Operator], after: Sequence[Operator]) -> dict[str, str]:
    """By name of an operator after, the name of the same one before."""
    names = {op.name for op in before}
    found = {op.name: op.name for op in after if op.name in names}
    taken = set(found.values())
    values = {(op.value, op.op): op.name for op in before if op.value and op.name not in taken}
    for op in after:
        if op.name not in found and (op.value, op.op) in values:
            found[op.name] = values.pop((op.value, op.op))
    return found


def _fate(operator: Operator, sites: Mapping[str, Site], after: Container[str], changed: Container[str]) -> str:
    if operator.name in sites:
        return sites[operator.name].status
    if operator.name not in after and operator.op not in ("Input", "Output"):
        return "gone"
    return "changed" if operator.name in changed else "same"


def _origin(operator: Operator, sites: Mapping[str, Site], was: Mapping[str, str], changed: Container[str]) -> str:
    if operator.name not in was:
        return "same" if operator.op in ("Input", "Output") else "new"
    name = was[operator.name]
    if name in sites and sites[name].status == "kept":
        return "kept"
    return "changed" if name in changed else "same"
