"""PyTorch programs in and out: read, merge branches, plan, rewrite, until there is nothing left to do.

program ──functional copy──> (read → merge branches)* → plan → rewrite ──> program without BatchNorms
"""

from __future__ import annotations

from torch.export import ExportedProgram

from bnfold.branches.search import may_merge
from bnfold.frontends.aten.editor import Editor
from bnfold.frontends.aten.functional import functional
from bnfold.frontends.aten.merge import Merger, held_values, merges_of
from bnfold.frontends.aten.planned import plan_program, weight_bytes
from bnfold.frontends.aten.program import AS_IT_IS, Reading, View, read_program
from bnfold.frontends.aten.rewrite import rewrite_program
from bnfold.planning.choices import AS_USUAL, Choices
from bnfold.planning.ledger import Ledger
from bnfold.planning.plan import Plan, Site
from bnfold.planning.sharing import Allowance, budget_bytes


def fold_program(program: ExportedProgram, choices: Choices = AS_USUAL) -> tuple[ExportedProgram, Plan]:
    """Remove every BatchNorm that a change of units can remove.

    Args:
        program: What `torch.export.export` returned; not changed.
        choices: How to fold it.

    Returns:
        A new program with the same inputs, outputs, dynamic shapes and function, and the plan that was carried out.
    """
    rounds = Rounds(Editor(functional(program)), choices)
    rounds.run()
    return rounds.editor.finished(), rounds.plan()


class Rounds:
    """One program being folded, round by round.

    Attributes:
        editor: The program as it is now.
        choices: How it is folded.
        view: How it is looked at.
    """

    def __init__(self, editor: Editor, choices: Choices = AS_USUAL, view: View = AS_IT_IS) -> None:
        self.editor, self.choices, self.view = editor, choices, view
        self.ledger: Ledger | None = None
        self._constants: dict[str, Site] = {}
        self._bytes = sum(tensor.nbytes for tensor in editor.tensors().values())

    def read(self, view: View | None = None) -> Reading:
        """The program as it is now."""
        reading = read_program(self.editor, view or self.view, self.choices)
        if self.ledger is None:
            self.ledger = Ledger(reading.order, reading.graph)
        self._constants |= {site.name: site for site in reading.constant_sites()}
        return reading

    def allowance(self, reading: Reading) -> Allowance:
        """What copies of shared weights may still cost."""
        sizes, grown = weight_bytes(reading.context), 0 if self.ledger is None else self.ledger.growth
        return Allowance(
            lambda stored: sizes.get(stored, 0), lambda: budget_bytes(self.choices.duplicate, self._bytes) - grown
        )

    def run(self) -> None:
        """Merge and fold in place, again where the one made room for the other."""
        unsolved = again = True
        while again:
            reading = self.read()
            ledger = self.ledger
            assert ledger is not None
            sums = merges_of(reading)
            if not sums and not unsolved:
                return
            if sums:
                Merger(self.editor, reading).run(sums)
                ledger.merged(sums, reading.graph)
                unsolved = True
                continue
            planned = plan_program(reading, self.choices, self.allowance(reading))
            plan, solution = planned.folding.plan, planned.folding.solution
            ledger.folded(plan)
            again = may_merge(reading.graph, held_values(reading), solution.removed)
            again = again or (self.choices.leftover == "conv" and plan.kept > 0)  # which may be a branch
            # Without channels in front of them, constants that vary by position have a unit at each of their elements.
            unsolved = bool(planned.folding.system.offsets and solution.removed)
            again = again or unsolved
            rewrite_program(self.editor, planned.edits, reading.context)

    def plan(self) -> Plan:
        """What has been carried out."""
        assert self.ledger is not None
        return self.ledger.plan(tuple(self._constants.values()))
