"""One operator of the model before and the one after that may be it: what laws ask of the units between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.certificate import moves
from bnfold.certificate.applied import unshifted
from bnfold.certificate.bounds import Bound
from bnfold.certificate.forms import Mismatch, Unit, channel_of, level, plain
from bnfold.certificate.sides import Side

Units = Sequence[Unit | None]


@dataclass(frozen=True)
class Pair:
    """One operator before and the one that may be it after.

    Attributes:
        before: Before.
        after: After.
        old: The constants before.
        new: The constants after.
        fixed: What constant a value after is, per channel, NaN where it is none; None where it never is.
    """

    before: ir.Node
    after: ir.Node
    old: Side
    new: Side
    fixed: Callable[[Any], Bound | None]

    def x(self, index: int = 0) -> ir.Value:
        """An operand before."""
        value = self.before.inputs[index]
        assert value is not None
        return value

    def y(self, index: int = 0) -> ir.Value:
        """A result after."""
        return self.after.outputs[index]

    def result(self, scale: Bound, shift: Bound, index: int = 0) -> Unit:
        """The unit of a result."""
        return Unit(self.y(index), scale, shift)

    def plain(self) -> list[Unit]:
        """Results that are the same before and after."""
        return [plain(v, 0 if v.shape is None else len(v.shape)) for v in self.after.outputs]

    def same(self, unit: Unit | None) -> None:
        """Demands an operand that is the same before and after."""
        if unit is not None:
            demand_same(unit, self.fixed(unit.value), "it")

    def unshifted(self, unit: Unit) -> Unit:
        """An operand whose zero is the same, which it must be."""
        return unshifted(unit, self.fixed(unit.value), "it needs the zero of what it reads")

    def even(self, unit: Unit, axes: Sequence[int]) -> Unit:
        """An operand whose unit does not vary along axes."""
        unit = level(unit, self.fixed(unit.value), axes)
        return unit.moved(unit.value, lambda bound: moves.even(bound, axes))


def demand_same(unit: Unit, fixed: Bound | None, what: str) -> None:
    """Demands a value that is the same before and after.

    Args:
        unit: Its unit.
        fixed: What constant it is after, per channel, NaN where it is none; None where it never is.
        what: Who demands it, for the message.

    Raises:
        Mismatch: It is another one.
    """
    if unit.is_plain:
        return
    wrong = ~(unit.scale.holds(1.0) & unit.shift.holds(0.0))
    if fixed is not None:
        alike = np.abs(unit.shift.mid - fixed.mid) <= unit.shift.err + fixed.err
        wrong = wrong & ~((unit.scale.mid == 0) & alike & unit.shift.known)
    if not wrong.any():
        return
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    scale, shift = (np.broadcast_to(b.mid, wrong.shape)[at] for b in (unit.scale, unit.shift))
    sign = "+" if shift >= 0 else "−"
    place = f"in channel {channel_of(at)}"
    raise Mismatch(f"{what} reads {scale:.9g}·x {sign} {abs(shift):.4g} {place}", differs=True)


class NoFeature(Mismatch):
    """A law about features met a constant, e.g. the zeros that an LSTM starts from, repeated for the batch."""


def only(units: Units) -> Unit:
    """The unit of the first operand, which is a feature.

    Raises:
        NoFeature: It is a constant.
    """
    unit = units[0]
    if unit is None:
        raise NoFeature("what it reads is constant")
    return unit


def positive_scale(unit: Unit) -> None:
    """Demands that a scale keeps the order of values."""
    if not ((unit.scale.mid - unit.scale.err > 0) | (unit.scale.mid == 0)).all():
        raise Mismatch("it needs a positive scale", differs=True)


def wide(bound: Bound, rank: int) -> Bound:
    """Numbers with as many axes as the result."""
    return bound.moved(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape))


Law = Callable[[Pair, Units], list[Unit]]


def rigid(pair: Pair, units: Units) -> list[Unit]:
    """Anything: the same operands give the same results."""
    mine, theirs = pair.before.inputs, pair.after.inputs
    for i in range(max(len(mine), len(theirs), len(units))):
        unit = units[i] if i < len(units) else None
        if unit is not None:
            pair.same(unit)
        else:
            same_constant(pair, mine[i] if i < len(mine) else None, theirs[i] if i < len(theirs) else None)
    return pair.plain()


def same_constant(pair: Pair, value: ir.Value | None, other: ir.Value | None) -> None:
    """Demands an operand that is the same constant before and after, or missing on both sides.

    Raises:
        Mismatch: It is not.
    """
    if not agree(pair.old, pair.new, value, other):
        raise Mismatch("a constant operand is another one after", differs=value is not None and other is not None)


def agree(old: Side, new: Side, value: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether two operands are the same constant, or missing on both sides."""
    if value is None or other is None:
        return value is other
    a, b = old.array(value), new.array(other)
    return a is not None and b is not None and alike(a, b)


def alike(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays hold the same numbers."""
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
