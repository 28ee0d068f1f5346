"""A program and its plan: what becomes of every BatchNorm, and what that means for the nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.edits import Edits, find_edits, find_misfits
from bnfold.frontends.aten.program import Reading
from bnfold.planning.choices import AS_USUAL, Choices
from bnfold.planning.plan import Folding, make_plan
from bnfold.planning.sharing import Allowance


@dataclass(frozen=True)
class Planned:
    """A plan and what it means for the nodes of the program.

    Attributes:
        reading: What was read.
        folding: The fate of every BatchNorm that is left, and the units that carry it out.
        edits: What to change.
    """

    reading: Reading
    folding: Folding
    edits: Edits


def plan_program(reading: Reading, choices: Choices = AS_USUAL, allowance: Allowance | None = None) -> Planned:
    """Decide what becomes of every BatchNorm of a program, and what that means for its nodes.

    Args:
        reading: The program.
        choices: How to fold it.
        allowance: What copies of shared weights may cost; None makes none.
    """
    context, leftover = reading.context, choices.leftover
    find = partial(find_misfits, context, leftover)
    folding = make_plan(reading.graph, context.kept, reading.order, leftover, allowance, find)
    return Planned(reading, folding, find_edits(folding, context, reading.constant_norms, leftover))


def weight_bytes(context: Context) -> Mapping[object, int]:
    """The size of each stored weight, by its identity."""
    return {context.identity(node): tensor.nbytes for node, tensor in context.tensors.items()}
