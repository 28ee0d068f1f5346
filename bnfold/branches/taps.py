"""One linear branch: `affine ∘ linear ∘ affine` of a tensor, per channel on both sides, as a kernel of float64.

`s_2 ⊙ (W ⋆ (s_1 ⊙ x + t_1) + b) + t_2` is the kernel `s_2 ⊙ W ⊙ s_1` with the bias `s_2 ⊙ (b + W·t_1) + t_2`. That does
not hold where the shift `t_1` would meet a padding of zeros (see `laws.shift_passes`). An identity or an affine is the
single tap 0 of a diagonal matrix, an average over a window is a depthwise kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bnfold.units.affine import Array
from bnfold.units.graph import Affine, Linear, Spatial
from bnfold.units.laws import shift_passes


@dataclass(frozen=True)
class Diagonal:
    """`y = scale·x + shift` per channel.

    Attributes:
        scale: float64[C], or float64[1] for all channels.
        shift: float64[C], or float64[1].
        axis: The axis of the channels; None where all of them are alike.
    """

    scale: Array
    shift: Array
    axis: int | None = None

    def then(self, other: Diagonal) -> Diagonal | None:
        """First this one, then the other; None where they work along different axes."""
        if None not in (self.axis, other.axis) and self.axis != other.axis:
            return None
        axis = other.axis if self.axis is None else self.axis
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused in the end
            return Diagonal(other.scale * self.scale, other.scale * self.shift + other.shift, axis)

    def fits(self, axis: int, channels: int) -> bool:
        """Whether it can stand at this axis, of so many channels."""
        return self.axis in (None, axis) and self.scale.size in (1, channels) and self.shift.size in (1, channels)


NOTHING = Diagonal(np.ones(1), np.zeros(1))


def sign(factor: float) -> Diagonal:
    """The operand of a sum or a difference."""
    return Diagonal(np.full(1, factor), np.zeros(1))


def diagonal(op: Affine, rank: int) -> Diagonal | None:
    """An affine that varies along one axis at most, of a tensor of this rank."""
    scale, shift = np.broadcast_arrays(op.scale, op.shift)
    varies = [i + rank - scale.ndim for i, size in enumerate(scale.shape) if size > 1]
    if len(varies) > 1 or scale.ndim > rank:
        return None
    return Diagonal(scale.reshape(-1), shift.reshape(-1), varies[0] if varies else None)


@dataclass(frozen=True)
class Branch:
    """`after ∘ op ∘ before` of a tensor.

    Attributes:
        before: What stands before the linear operator.
        op: The linear operator, or an average over a window; None where the branch is `before` alone.
        after: What stands behind it.
        bias: float64[out_channels] of the operator.
        names: The operators that the branch consists of.
    """

    before: Diagonal = NOTHING
    op: Linear | Spatial | None = None
    after: Diagonal = NOTHING
    bias: Array | None = None
    names: tuple[str, ...] = ()

    def scaled(self, other: Diagonal, *names: str) -> Branch | None:
        """This branch, then a per-channel affine."""
        result = (self.before if self.op is None else self.after).then(other)
        if result is None:
            return None
        named = replace(self, names=(*self.names, *names))
        return replace(named, before=result) if self.op is None else replace(named, after=result)

    def through(self, op: Linear | Spatial, bias: Array | None = None, trusting: bool = False) -> Branch | None:
        """This branch, then an operator with taps; None where it has one already, or a shift would meet padding.

        Args:
            op: The operator.
            bias: float64[out_channels].
            trusting: Whether to take for granted that a shift passes.
        """
        if self.op is not None or (op.window is not None and op.window.transposed):
            return None
        if isinstance(op, Linear) and not self.before.fits(op.x_axis, op.kernel.in_channels):
            return None
        shifted = self.before.shift != 0
        if not trusting and shifted.any():
            passes = shift_passes(op) if isinstance(op, Linear) else np.full(1, op.unit_sum)
            if not (passes | ~shifted).all():
                return None
        return replace(self, op=op, bias=bias, names=(*self.names, op.name))

    @property
    def multiplies(self) -> int:
        """Multiplications per output position; none for what is no Linear."""
        return math.prod(self.op.kernel.shape) if isinstance(self.op, Linear) else 0

    def taps(self, channels: int, dims: int) -> tuple[Array, int, Array]:
        """The branch as one kernel.

        Returns:
            Weight float64[out, in/groups, *taps], number of groups, bias float64[out].
        """
        before = [np.broadcast_to(v, channels) for v in (self.before.scale, self.before.shift)]
        if self.op is None:
            return before[0].reshape(-1, *(1,) * (dims + 1)), channels, before[1]
        if isinstance(self.op, Linear):
            kernel = self.op.kernel
            stored = kernel.weight()
            response = kernel.response(stored, before[1]) if before[1].any() else np.zeros(kernel.out_channels)
            weight = kernel.grouped(stored).astype(np.float64)
            if kernel.gain != 1 or np.any(before[0] != 1):
                weight *= kernel.gain * before[0].reshape(kernel.groups, 1, -1, *(1,) * dims)
            weight, groups = weight.reshape(-1, *weight.shape[2:]), kernel.groups
        else:
            assert self.op.window is not None
            area = math.prod(self.op.window.kernel)
            weight, groups, response = np.full((channels, 1, *self.op.window.kernel), 1.0 / area), channels, before[1]
            weight = weight * before[0].reshape(-1, *(1,) * (dims + 1))
        bias = response if self.bias is None else response + self.bias
        scale = np.broadcast_to(self.after.scale, len(bias))
        weight *= scale.reshape(-1, *(1,) * (dims + 1))
        return weight, groups, scale * bias + self.after.shift
