"""What a BatchNorm that must stay is written as: `keep` as it is, `affine` as Mul and Add, `conv` as a depthwise Conv.

As Mul and Add it is two operators, and one where its scale can go elsewhere: behind Concat, the scale of

    concat → BN → ReLU → Conv        relu(s·x + t) = s·relu(x + t/s)    for s > 0

goes into the Conv, and an Add of `t/s` is what stays. So once it is decided what vanishes, the solver is asked not to
let such a BatchNorm multiply; or else, not to let it add.
"""

from __future__ import annotations

import numpy as np

from bnfold.errors import UsageError
from bnfold.planning.conditioning import largest_shift
from bnfold.units.graph import Graph
from bnfold.units.system import System
from bnfold.wording import guess_among

LEFTOVERS = ("keep", "affine", "conv")
CONV_RANK = 3  # the least number of axes that a Conv takes
SINGLE = 24  # bits of the significand of float32
WIDE = 2.0**40  # no weight or constant of a trained float32 model times this leaves its range


def check_leftover(leftover: str) -> None:
    """Refuses a way to write BatchNorms that does not exist."""
    if leftover not in LEFTOVERS:
        raise UsageError(f"no leftover is called {leftover!r}", guess_among(leftover, LEFTOVERS))


def said(leftover: str, kept: int, left: int) -> tuple[str, ...]:
    """What became of the BatchNorms that stay, in words.

    Args:
        leftover: How they were to be written.
        kept: How many stay.
        left: How many BatchNormalization operators the folded model has.
    """
    if leftover == "keep" or not kept:
        return ()
    form = "Mul and Add, or as one of them where that is enough" if leftover == "affine" else "a depthwise 1×1 Conv"
    who = "the BatchNorm that stays" if kept == 1 else f"the {kept} BatchNorms that stay"
    if left >= kept:
        return (f"{who} cannot be written as {form}",)
    if not left:
        return (f"{who} {'is' if kept == 1 else 'are'} written as {form}",)
    some = f"{kept - left} of {who} {'is' if kept - left == 1 else 'are'} written as {form}"
    return (f"{some}; {left} cannot be, and {'stays as it is' if left == 1 else 'stay as they are'}",)


def is_split(leftover: str, rank: int) -> bool:
    """Whether a BatchNorm over so many axes that stays is written as Mul and Add."""
    return leftover == "affine" or (leftover == "conv" and rank < CONV_RANK)


def splittable(system: System, graph: Graph, leftover: str) -> dict[str, bool]:
    """The BatchNorms whose scale should go elsewhere if they stay, and whether their shift may instead.

    `x + t/s` is rounded no worse than `s·x + t` was, in parts of either; but where the dtype has little range, `t/s` or
    the weights that take `s` may leave it, so there both must be moderate. A shift that goes is judged as that of a
    BatchNorm that vanishes (`bnfold.planning.conditioning`).
    """
    moderate = largest_shift(graph)
    limit = WIDE if graph.precision >= SINGLE else moderate
    found = {}
    for candidate in system.candidates:
        rank = len(graph.shapes.get(candidate.op.y, ()))
        if not candidate.op.batch_norm or not is_split(leftover, rank):
            continue
        s, t, spread = np.abs(candidate.scale), np.abs(candidate.shift), candidate.spread
        if np.all((s <= limit) & (s * limit >= 1) & (t <= limit * s)):
            found[candidate.op.name] = spread is not None and bool(np.all(t <= moderate * s * spread))
    return found
