"""Where the channels of a tensor lie: which of its elements share a unit.

Every unit variable of a graph is a *cell*, a small integer. A tensor does not own its cells: operators that only carry
channels (Reshape, Transpose, Concat, pooling, ReLU) give their result the cells of their input, in another arrangement.

An axis is a row-major product of factors, as in `(c h w)`, each of them either a **channel** factor, along which cells
differ, or a **position** factor, along which they repeat. `Tensor.cells` has one dimension per channel factor, in order
of appearance. So Conv's output is `n | C* | h | w`, its Flatten `n | C* (hw)`, attention heads `n | heads* | t | d*`,
and Reshape, Transpose, channel shuffle and depth-to-space are rearrangements of factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]


class Factor(NamedTuple):
    """A factor of an axis.

    Attributes:
        size: Number of elements; a name where it is symbolic, None where it is unknown.
        channel: Whether cells differ along it.
    """

    size: int | str | None
    channel: bool = False


Axis = tuple[Factor, ...]


@dataclass(frozen=True)
class Tensor:
    """Cells of a tensor and how they lie in it.

    Attributes:
        cells: int64, one dimension per channel factor.
        axes: The factors of each axis.
    """

    cells: Cells
    axes: tuple[Axis, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def has_channels(self) -> bool:
        """Whether cells differ anywhere."""
        return self.cells.ndim > 0

    @cached_property
    def channel_axes(self) -> frozenset[int]:
        """The axes along which cells differ."""
        if not self.cells.ndim:
            return frozenset()
        return frozenset(i for i, axis in enumerate(self.axes) if any(f.channel for f in axis))

    @cached_property
    def flat(self) -> Cells:
        """The cells in one dimension; where they lie so already, the very same array."""
        return ravel(self.cells)

    def dims_of(self, axis: int) -> range:
        """The dimensions of `cells` that lie on an axis."""
        first = sum(f.channel for a in self.axes[:axis] for f in a)
        return range(first, first + sum(f.channel for f in self.axes[axis]))


def ravel(cells: Cells) -> Cells:
    """Cells in one dimension; where they lie so already, the very same array."""
    return cells if cells.ndim == 1 else cells.reshape(-1)


def uniform(cell: int, shape: Sequence[int | str | None]) -> Tensor:
    """A tensor with one cell for all its elements."""
    return Tensor(np.array(cell, dtype=np.int64), tuple((Factor(size),) for size in shape))


def channels_on(cells: Cells, shape: Sequence[int | str | None], axis: int) -> Tensor:
    """A tensor whose cells lie on one axis."""
    axes = tuple((Factor(len(cells), True),) if i == axis else (Factor(size),) for i, size in enumerate(shape))
    return tidy(cells, axes)


def tidy(cells: Cells, axes: Sequence[Axis]) -> Tensor:
    """The simplest form: no channel factor of size 1, no two neighbours of one kind on an axis."""
    if all(len(axis) == 1 and not (axis[0].channel and axis[0].size == 1) for axis in axes):
        shape = tuple([axis[0].size for axis in axes if axis[0].channel])
        return Tensor(cells if cells.shape == shape else cells.reshape(shape), tuple(axes))
    flat_sizes: list[int] = []
    result: list[Axis] = []
    for axis in axes:
        named = [Factor(f.size, f.channel and f.size != 1) for f in axis if f.size != 1] or [Factor(1)]
        merged: list[Factor] = []
        for channel, group in groupby(named, key=lambda f: f.channel):
            sizes = [f.size for f in group]
            size = sizes[0] if len(sizes) == 1 else product(sizes)
            merged.append(Factor(size, channel))
            if channel:
                assert isinstance(size, int), "a channel factor has a known size"
                flat_sizes.append(size)
        result.append(tuple(merged))
    return Tensor(cells.reshape(flat_sizes), tuple(result))


def product(sizes: Sequence[int | str | None]) -> int | None:
    """The product of sizes, None where one is not a number."""
    return math.prod(s for s in sizes if isinstance(s, int)) if all(isinstance(s, int) for s in sizes) else None


def size_of(axis: Axis) -> int | str | None:
    """The size of an axis."""
    return axis[0].size if len(axis) == 1 else product([f.size for f in axis])


def collapse(tensor: Tensor, axes: AbstractSet[int]) -> tuple[Tensor, list[tuple[Cells, Cells]]]:
    """Make a tensor uniform along some axes.

    Returns:
        The tensor with the first cell along those axes for all, and the pairs of cells that must be tied for that.
    """
    dims = tuple(d for axis in sorted(axes) for d in tensor.dims_of(axis)) if axes else ()
    if not dims:
        return tensor, []
    first = tensor.cells[tuple(slice(0, 1) if d in dims else slice(None) for d in range(tensor.cells.ndim))]
    pairs = [(np.broadcast_to(first, tensor.cells.shape).reshape(-1), tensor.cells.reshape(-1))]
    flat = tuple(tuple(Factor(f.size, f.channel and i not in axes) for f in axis) for i, axis in enumerate(tensor.axes))
    return tidy(first, flat), pairs


def along(tensor: Tensor, axis: int, size: int) -> tuple[Cells, list[tuple[Cells, Cells]]]:
    """The cells along one axis, after making the tensor uniform along all others.

    Args:
        tensor: Any tensor.
        axis: The axis.
        size: Its size, which the operator that reads it knows.

    Returns:
        int64[size], and the pairs that must be tied.
    """
    single, pairs = collapse(tensor, tensor.channel_axes - {axis})
    if not single.has_channels:
        return np.full(size, int(single.cells)), pairs
    return full_axis(single, axis, size).cells, pairs


def full_axis(tensor: Tensor, axis: int, size: int) -> Tensor:
    """The same tensor with all of one axis as a single channel factor, cells repeated where they were shared."""
    factors = tensor.axes[axis]
    if factors == (Factor(size, True),):
        return tensor
    known = product([f.size for f in factors if f.size is not None and not isinstance(f.size, str)]) or 1
    sizes = [f.size if isinstance(f.size, int) else size // known for f in factors]
    dims = tensor.dims_of(axis)
    before, after = tensor.cells.shape[: dims.start], tensor.cells.shape[dims.stop :]
    shaped = tensor.cells.reshape(
        *before, *(s if f.channel else 1 for s, f in zip(sizes, factors, strict=True)), *after
    )
    cells = np.broadcast_to(shaped, (*before, *sizes, *after)).reshape(*before, size, *after)
    axes = tuple((Factor(size, True),) if i == axis else a for i, a in enumerate(tensor.axes))
    return Tensor(cells, axes)


def transpose(tensor: Tensor, perm: Sequence[int]) -> Tensor:
    """Axes in another order."""
    order = [d for axis in perm for d in tensor.dims_of(axis)]
    return Tensor(tensor.cells.transpose(order), tuple(tensor.axes[axis] for axis in perm))


def reshape(tensor: Tensor, shape: Sequence[int | str | None]) -> Tensor | None:
    """The same elements, in row-major order, in another shape; None where channels would be torn apart.

    Sizes are matched from the right, then from the left, splitting factors as needed, up to a size that is not known.
    What is left over in the middle goes into one axis, or holds positions only.
    """
    middle = [f for axis in tensor.axes for f in axis if f.size != 1]
    target: list[Axis] = [(Factor(size),) for size in shape]
    right, tail = len(shape), list[Factor]()
    while right and (taken := _take_last(middle, shape[right - 1])) is not None:
        right -= 1
        target[right] = tuple(taken) or (Factor(1),)
        tail[:0] = taken
    left, head = 0, list[Factor]()
    middle.reverse()
    while left < right and (taken := _take_last(middle, shape[left])) is not None:
        target[left] = tuple(reversed(taken)) or (Factor(1),)
        head.extend(reversed(taken))
        left += 1
    middle.reverse()
    if right - left == 1:
        target[left] = tuple(middle) or (Factor(1),)
    elif any(f.channel for f in middle):
        return None
    whole = [*head, *middle, *tail]
    return tidy(tensor.cells.reshape([f.size for f in whole if f.channel and isinstance(f.size, int)]), target)


def _take_last(source: list[Factor], size: int | str | None) -> list[Factor] | None:
    """Take factors that multiply to `size` from the end of `source`; None, taking nothing, if that is unknown."""
    if not isinstance(size, int):
        return [source.pop()] if source and size is not None and source[-1].size == size else None
    kept, taken = list(source), list[Factor]()
    while size > 1:
        if not kept or not isinstance(kept[-1].size, int):
            return None
        last = kept.pop()
        here = last.size if isinstance(last.size, int) else 1
        if size % here == 0:
            taken.insert(0, last)
            size //= here
        elif here % size == 0:
            kept.append(Factor(here // size, last.channel))
            taken.insert(0, Factor(size, last.channel))
            size = 1
        else:
            return None
    source[:] = kept
    return taken


def common_axes(tensors: Sequence[Tensor], shape: Sequence[int | str | None]) -> tuple[Axis, ...] | None:
    """The factors of a broadcast result: channels wherever one operand has them; None if they do not match."""
    if len(tensors) > 1 and all(t.axes == tensors[0].axes and t.rank == len(shape) for t in tensors):
        return tensors[0].axes
    result: list[Axis] = []
    for i, size in enumerate(shape):
        merged: list[Factor] | None = None
        for tensor in tensors:
            at = i - (len(shape) - tensor.rank)
            if at < 0 or not any(f.channel for f in tensor.axes[at]):
                continue
            factors = list(tensor.axes[at])
            merged = factors if merged is None else _refine(merged, factors)
            if merged is None:
                return None
        result.append(tuple(merged) if merged else (Factor(size),))
    return tuple(result)


def _refine(a: list[Factor], b: list[Factor]) -> list[Factor] | None:
    """The coarsest list of factors that both `a` and `b` are products of."""
    a, b, result = list(a), list(b), list[Factor]()
    while a and b:
        x, y = a.pop(), b.pop()
        if not isinstance(x.size, int) or not isinstance(y.size, int):
            if a or b:
                return None
            result.insert(0, Factor(x.size if isinstance(x.size, int) else y.size, x.channel or y.channel))
            continue
        small = min(x.size, y.size)
        if max(x.size, y.size) % small:
            return None
        result.insert(0, Factor(small, x.channel or y.channel))
        if x.size > small:
            a.append(Factor(x.size // small, x.channel))
        if y.size > small:
            b.append(Factor(y.size // small, y.channel))
    return None if any(f.size != 1 for f in a + b) else result


def spread(tensor: Tensor, axes: Sequence[Axis]) -> Cells:
    """The cells of a tensor broadcast to the channel factors of `axes` (a result of `common_axes`).

    Returns:
        int64, one dimension per channel factor of `axes`.
    """
    if tensor.axes is axes or tensor.axes == axes:
        return tensor.cells
    shape: list[int] = []  # dimensions of the result
    own: list[int] = []  # the same, 1 where this tensor does not vary
    for i, axis in enumerate(axes):
        at = i - (len(axes) - tensor.rank)
        factors = list(tensor.axes[at]) if at >= 0 else []
        varies = any(f.channel for f in factors)
        rest = [f for f in factors if f.size != 1]
        flags: list[bool] = []
        for factor in reversed(axis):
            here = rest[-1] if rest and varies else Factor(1)
            flags.insert(0, here.channel)
            if not (rest and varies):
                continue
            rest.pop()
            if isinstance(here.size, int) and isinstance(factor.size, int) and here.size > factor.size:
                rest.append(Factor(here.size // factor.size, here.channel))
        for factor, flag in zip(axis, flags, strict=True):
            if factor.channel:
                assert isinstance(factor.size, int), "a channel factor has a known size"
                shape.append(factor.size)
                own.append(factor.size if flag else 1)
    return np.broadcast_to(tensor.cells.reshape(own), shape)
