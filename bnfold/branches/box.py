"""Parallel linear branches on one box: what operator their sum is, and its weights, summed in float64.

Tap `j` of a kernel reads its input at the offset `−p + d·j` from where the output stands (times the stride), so
branches with equal strides and equal output sizes are one sum over the union of their offsets:

    Σ_i (W_i ⋆ x + b_i) = (Σ_i W_i placed in the box) ⋆ x + Σ_i b_i

The box of all offsets gives kernel, padding and dilation of the result. Padding is the same zeros for every branch, so
borders stay exact. Groups add up on the coarsest grouping that holds all of them, whose number is their greatest common
divisor. The result may not multiply more than the branches did, so neither a wide and sparse box nor a dense one for a
depthwise kernel will do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold.branches.taps import Branch
from bnfold.units.affine import Array
from bnfold.units.graph import Linear, Spatial
from bnfold.units.window import Window


@dataclass(frozen=True)
class Box:
    """One linear operator that holds several branches.

    Attributes:
        main: The branch with the most multiplications, whose operator the result replaces.
        channels: Number of input channels.
        outputs: Number of output channels.
        groups: Number of groups.
        window: How it slides; None for a matrix product.
    """

    main: Linear
    channels: int
    outputs: int
    groups: int
    window: Window | None

    @property
    def multiplies(self) -> int:
        """Multiplications per output position."""
        taps = 1 if self.window is None else math.prod(self.window.kernel)
        return self.outputs * (self.channels // self.groups) * taps

    def total(self, branches: Sequence[Branch]) -> tuple[Array, Array]:
        """The sum of branches.

        Returns:
            Weight float64[out, in/groups, *taps] and bias float64[out].
        """
        kernel = () if self.window is None else self.window.kernel
        weight = np.zeros((self.outputs, self.channels // self.groups, *kernel))
        bias = np.zeros(self.outputs)
        with np.errstate(over="ignore", invalid="ignore"):
            for branch in branches:
                taps, groups, shift = branch.taps(self.channels, len(kernel))
                self._place(weight, taps, groups, branch)
                bias += shift
        return weight, bias

    def _place(self, weight: Array, taps: Array, groups: int, branch: Branch) -> None:
        """Add a kernel of `groups` groups to one of fewer."""
        each = groups // self.groups
        outputs, inputs = self.outputs // groups, self.channels // groups
        room = weight.reshape(self.groups, each, outputs, each, inputs, *weight.shape[2:])
        own = taps.reshape(self.groups, each, outputs, inputs, *taps.shape[2:])
        if each == 1:
            inside: Any = (slice(None), 0, slice(None), 0, slice(None), *self._slices(branch))
            room[inside] += own[:, 0]
            return
        own_group = np.arange(each)
        where: Any = (slice(None), own_group, slice(None), own_group, slice(None), *self._slices(branch))
        room[where] += own.swapaxes(0, 1)

    def _slices(self, branch: Branch) -> Iterator[slice]:
        """Where in the box the taps of a branch are, per axis."""
        if self.window is None:
            return
        window = _window_of(branch, self.window)
        for i, k in enumerate(window.kernel):
            first = (self.window.pads_begin[i] - window.pads_begin[i]) // self.window.dilations[i]
            step = max(window.dilations[i] // self.window.dilations[i], 1)
            yield slice(first, first + step * (k - 1) + 1, step)


def box_of(branches: Sequence[Branch], channels: int | None) -> Box | None:
    """The one operator that branches of a tensor can be; None where there is none, or it would multiply more.

    Args:
        branches: Two or more.
        channels: Number of the tensor's channels along the axis of its linear operators; None where it is not known.
    """
    linears = [b.op for b in branches if isinstance(b.op, Linear)]
    if not linears or len(branches) < 2:
        return None
    main = max(linears, key=lambda op: math.prod(op.kernel.shape))
    if not all(_alike(op, main) for op in linears):
        return None
    inputs, outputs = main.kernel.in_channels, main.kernel.out_channels
    for branch in branches:
        if not isinstance(branch.op, Linear) and (
            inputs != outputs or inputs != channels or main.x_axis != main.y_axis
        ):
            return None
        if isinstance(branch.op, Spatial) and (main.window is None or main.x_axis != 1):
            return None
        if not (branch.before.fits(main.x_axis, inputs) and branch.after.fits(main.y_axis, outputs)):
            return None
    groups = math.gcd(*(b.op.kernel.groups if isinstance(b.op, Linear) else inputs for b in branches))
    window = None
    if main.window is not None:
        window = _union([_window_of(b, main.window) for b in branches])
        if window is None:
            return None
    box = Box(main, inputs, outputs, groups, window)
    return box if box.multiplies <= sum(b.multiplies for b in branches) else None


def groupings(operands: Sequence[Sequence[Branch]], channels: int | None) -> list[tuple[list[int], Box]]:
    """Sets of operands that one operator can hold: all of them, else those grown from each one.

    Args:
        operands: The branches that each operand is a sum of, all of one tensor.
        channels: Number of the tensor's channels, as in `box_of`.

    Returns:
        Indices of two or more operands, and their box.
    """

    def cost(i: int) -> int:
        return sum(branch.multiplies for branch in operands[i])

    def box(group: Sequence[int]) -> Box | None:
        return box_of([branch for i in group for branch in operands[i]], channels)

    if len(operands) < 2:
        return []
    everything = list(range(len(operands)))
    whole = box(everything)
    if whole is not None:
        return [(everything, whole)]
    found = []
    largest_first = sorted(everything, key=cost, reverse=True)
    for start in largest_first:
        group, held, multiplies = [start], None, cost(start)
        for i in largest_first:
            grown = box([*group, i]) if i != start else None
            if grown is not None and grown.multiplies <= multiplies + cost(i):
                group, held, multiplies = [*group, i], grown, grown.multiplies
        if held is not None:
            found.append((sorted(group), held))
    return found


def _alike(op: Linear, main: Linear) -> bool:
    """Whether two operators read and write the same channels of the same axes."""
    return (
        (op.x_axis, op.y_axis) == (main.x_axis, main.y_axis)
        and (op.kernel.in_channels, op.kernel.out_channels) == (main.kernel.in_channels, main.kernel.out_channels)
        and (op.window is None) == (main.window is None)
    )


def _window_of(branch: Branch, like: Window) -> Window:
    """How a branch slides over the input of another one; without an operator it is a single tap."""
    if branch.op is not None and branch.op.window is not None:
        return branch.op.window
    one, zero = (1,) * len(like.kernel), (0,) * len(like.kernel)
    return Window(one, one, one, zero, zero, like.sizes)


def _union(windows: Sequence[Window]) -> Window | None:
    """The window whose taps are those of all windows; None where their results differ in size."""
    first = windows[0]
    if any(len(w.kernel) != len(first.kernel) or w.strides != first.strides for w in windows):
        return None
    if any(pad < 0 for w in windows for pad in (*w.pads_begin, *w.pads_end)):
        return None
    kernel, dilations, begin, end = [], [], [], []
    for i, stride in enumerate(first.strides):
        offsets = {w.dilations[i] * j - w.pads_begin[i] for w in windows for j in range(w.kernel[i])}
        low, high = min(offsets), max(offsets)
        step = math.gcd(*(offset - low for offset in offsets)) or 1
        last = [w.dilations[i] * (w.kernel[i] - 1) - w.pads_begin[i] for w in windows]
        room = [w.pads_end[i] - at for w, at in zip(windows, last, strict=True)]
        size = first.sizes[i]
        results = set(room) if size is None else {(size + r - 1) // stride for r in room}
        if len(results) > 1 or (size is not None and min(results) < 0):
            return None
        kernel.append((high - low) // step + 1)
        dilations.append(step)
        begin.append(-low)
        end.append(windows[last.index(high)].pads_end[i])
    return Window(tuple(kernel), first.strides, tuple(dilations), tuple(begin), tuple(end), first.sizes)
