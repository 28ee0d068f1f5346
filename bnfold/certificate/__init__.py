"""The certificate: two ONNX models are the same function for all inputs, shown from their graphs and weights alone.

Nothing is run, and nothing of the solver, the laws or the plan is used: `walk` writes every value of the model before
in values of the model after and compares the weights that this needs with those that are stored, up to their rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from bnfold.certificate.walk import Findings, Problem, Walk
from bnfold.frontends.onnx import prepare

OURS = (0.5, 4.0)  # units in the last place: one correct rounding; some more, where branches were merged before
ANYBODYS = (*OURS, 32.0)  # what folding in the dtype of the weights does


@dataclass(frozen=True)
class Certificate:
    """What could be shown.

    Attributes:
        proved: Whether all outputs are the same function of the inputs.
        operators: Operators of the model before that were shown to agree.
        ulps: By how many units in the last place stored numbers may have been off for that.
        problems: What was not shown.
        assumed: Values that were taken to be the same, as their operators were not understood.
    """

    proved: bool
    operators: int
    ulps: float
    problems: tuple[Problem, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def refuted(self) -> bool:
        """Whether weights were found that disagree."""
        return any(problem.differs for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The certificate as it stands in `--json`."""
        return {
            "proved": self.proved,
            "operators": self.operators,
            "ulps": self.ulps,
            "problems": [{"name": p.name, "text": p.words, "differs": p.differs} for p in self.problems],
            "assumed": list(self.assumed),
        }


def certify(before: ir.Model, after: ir.Model, levels: Sequence[float] = OURS) -> Certificate:
    """Show that two models are the same function, or say where that fails.

    Args:
        before: The model as it was; not changed.
        after: The model that is to be the same function; not changed.
        levels: By how many units in the last place its stored numbers may be off from what exact arithmetic gives, from
            strict to lenient; the first that suffices counts.

    Returns:
        The certificate. "The same function" is meant in real arithmetic, for all inputs and all sizes they may have, up
        to the rounding of stored weights.
    """
    old, new = prepare(before.clone()), prepare(after.clone())
    for ulps in levels:
        findings = Findings()
        Walk(old.model.graph, new.model.graph, old.labels, ulps, findings).run()
        if not findings.problems and not findings.assumed:
            return Certificate(True, findings.operators, ulps)
    return Certificate(False, findings.operators, ulps, tuple(findings.problems), tuple(findings.assumed))


__all__ = ["ANYBODYS", "OURS", "Certificate", "Problem", "certify"]
