"""Linear operators by what they read: kernels, the offsets of their taps, sums of several over one tensor.

A convolution is `y[o, p] = Σ_i Σ_j W[o, i, j] · x[i, s·p − b + d·j]`: tap `j` of an axis reads at the offset
`−b + d·j` (`b` the padding before, `d` the dilation, `s` the stride), and outside the tensor it reads 0. Two
convolutions are the same function if, on the union of their offsets, their taps are the same numbers and they have
equally many positions. A matrix product is one without taps; a transposed convolution is compared only with one that
slides the same way.

Nothing here is shared with the code that folds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bnfold.certificate.bounds import NOISE, UNKNOWN, Array, Bound


@dataclass(frozen=True)
class Slide:
    """How a kernel slides; all tuples hold one number per axis of space.

    Attributes:
        strides: Steps.
        dilations: Distance of the taps.
        begin: Zeros before.
        end: Zeros behind.
        sizes: Sizes of the input, None where not known.
        transposed: Whether it is a transposed convolution.
        extra: Its output padding.
        automatic: `auto_pad`, where the padding depends on a size that is not known; then `begin` and `end` are 0.
    """

    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    sizes: tuple[int | None, ...] = ()
    transposed: bool = False
    extra: tuple[int, ...] = ()
    automatic: str = "NOTSET"


@dataclass(frozen=True)
class Taps:
    """A linear map of one tensor's channels, with the bounds of its numbers.

    Attributes:
        mid: float64[groups, out/groups, in/groups, *taps].
        err: The same shape, or one that broadcasts to it.
        slide: How it slides.
        axis: The channel axis of input and output.
        rank: Number of axes of both.
    """

    mid: Array
    err: Array
    slide: Slide
    axis: int
    rank: int

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.mid.shape[0])

    @property
    def outs(self) -> int:
        """Number of output channels."""
        return int(self.mid.shape[0] * self.mid.shape[1])

    @property
    def ins(self) -> int:
        """Number of input channels."""
        return int(self.mid.shape[0] * self.mid.shape[2])

    @property
    def window(self) -> tuple[int, ...]:
        """Number of taps along each axis of space."""
        return self.mid.shape[3:]

    @property
    def is_pointwise(self) -> bool:
        """Whether it mixes no positions and pads none."""
        s = self.slide
        return set(self.window) <= {1} and not s.transposed and not any((*s.begin, *s.end)) and s.automatic == "NOTSET"

    def of_input(self, scale: Bound) -> Taps:
        """The map of `x'` where `x = scale·x'`, with `scale` float64[in] or one number."""
        s, e = (np.broadcast_to(a, (self.ins,)) for a in (scale.mid, scale.err))
        if (s == 1).all() and not e.any():
            return self
        shape = (self.groups, 1, -1) + (1,) * len(self.window)
        err = self.err * np.abs(s.reshape(shape))
        if e.any():
            err = err + np.abs(self.mid) * e.reshape(shape)
        return replace(self, mid=self.mid * s.reshape(shape), err=err)

    def of_output(self, scale: Bound) -> Taps:
        """`scale·y`, with `scale` float64[out] or one number."""
        s, e = (np.broadcast_to(a, (self.outs,)) for a in (scale.mid, scale.err))
        if (s == 1).all() and not e.any():
            return self
        shape = (self.groups, -1, 1) + (1,) * len(self.window)
        err = self.err * np.abs(s.reshape(shape))
        if e.any():
            err = err + np.abs(self.mid) * e.reshape(shape)
        return replace(self, mid=self.mid * s.reshape(shape), err=err)

    def positions(self) -> tuple[int | None, ...]:
        """What the number of output positions depends on beside the input's size, per axis."""
        s = self.slide
        return tuple(b + e - (k - 1) * d for b, e, k, d in zip(s.begin, s.end, self.window, s.dilations, strict=True))

    def response(self, image: Bound) -> tuple[Bound, NDArray[np.bool_]]:
        """What a constant image gives, and for which output channels it is the same at every position.

        Args:
            image: The value of each input channel, float64[in].

        Returns:
            float64[out] with its bound, and bool[out].
        """
        mid, err = (np.broadcast_to(a, (self.ins,)).reshape(self.groups, -1) for a in (image.mid, image.err))
        per_tap = np.einsum("goi...,gi->go...", self.mid, mid)
        size = np.einsum("goi...,gi->go...", np.abs(self.mid), np.abs(mid))
        doubt = np.einsum("goi...,gi->go...", np.abs(self.mid), err) + 64 * NOISE * size
        if not image.known.all():
            lost = np.broadcast_to(~image.known, (self.ins,)).reshape(self.groups, -1)
            doubt = np.where(np.einsum("goi...,gi->go...", self.mid != 0, lost) > 0, UNKNOWN, doubt)
        total, slack, even = self._everywhere(per_tap, doubt)
        return Bound(total.reshape(-1), slack.reshape(-1)), even.reshape(-1)

    def without(self, image: Array, unsure: Array) -> tuple[Taps, Bound]:
        """The map without input channels that are constants, and what those give.

        An input channel stays where what it gives an output channel is not the same at every position: behind padding.

        Args:
            image: The constant of each input channel, NaN where it is none, float64[in].
            unsure: Its error.

        Returns:
            The map, and float64[out].
        """
        which = np.flatnonzero(np.isfinite(image))
        if not which.size:
            return self, Bound.exact(np.zeros(self.outs))
        group, column = which // self.mid.shape[2], which % self.mid.shape[2]
        mid, err = (np.broadcast_to(a, self.mid.shape)[group, :, column] for a in (self.mid, self.err))
        scale, slack = (a[which].reshape(-1, *(1,) * (mid.ndim - 1)) for a in (image, unsure))
        per_tap = mid * scale  # [constants, out/groups, *taps]
        doubt = np.abs(mid) * slack + err * (np.abs(scale) + slack) + 64 * NOISE * np.abs(per_tap)
        given, error, even = self._everywhere(per_tap, doubt)
        kept = np.where(even.reshape(*even.shape, *(1,) * len(self.window)), 0.0, 1.0)
        arrays = [np.array(np.broadcast_to(a, self.mid.shape)) for a in (self.mid, self.err)]
        for array in arrays:
            array[group, :, column] *= kept
        total = np.zeros((2, self.groups, self.mid.shape[1]))
        for sums, parts in zip(total, (given, error), strict=True):
            np.add.at(sums, group, np.where(even, parts, 0.0))
        return replace(self, mid=arrays[0], err=arrays[1]), Bound(total[0].reshape(-1), total[1].reshape(-1))

    def by_position(self, const: Bound) -> Bound:
        """What a map that mixes no positions makes of a constant that varies by position."""
        steps = (slice(None), slice(None), *(slice(None, None, stride) for stride in self.slide.strides))
        shape = tuple(self.ins if i == self.axis else size for i, size in enumerate(const.mid.shape))
        parts = []
        for array, weight in ((const.mid, self.mid), (np.broadcast_to(const.err, const.mid.shape), np.abs(self.mid))):
            wide = np.moveaxis(np.broadcast_to(array, shape), self.axis, -1)
            grouped = wide.reshape(*wide.shape[:-1], self.groups, -1)
            matrix = weight.reshape(*weight.shape[:3])
            made = np.einsum("...gi,goi->...go", grouped, matrix).reshape(*wide.shape[:-1], self.outs)
            moved = np.moveaxis(made, -1, self.axis)
            parts.append(moved[steps] if self.window else moved)
        return Bound(parts[0], parts[1] + 1e-14 * np.abs(parts[0]))

    def _everywhere(self, per_tap: Array, doubt: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Sums over the taps that positions read, their errors, and whether they are the same at every position.

        Args:
            per_tap: float64[a, b, *taps].
            doubt: Their errors.

        Returns:
            Three arrays of shape [a, b].
        """
        if not self.window:
            return per_tap, doubt, np.ones(per_tap.shape, dtype=bool)
        where = [_visible(self, axis) for axis in range(len(self.window))]
        total, slack = (_gathered(a, where).reshape(*a.shape[:2], -1) for a in (per_tap, doubt))
        low, high, most = total.min(axis=2), total.max(axis=2), slack.max(axis=2)
        return low / 2 + high / 2, most, (high - low) / 2 <= most


def _gathered(per_tap: Array, where: list[NDArray[np.float64]]) -> Array:
    """Sums over the taps that each kind of position reads: one row of `where` per position, along each axis."""
    total = per_tap
    for visible in where:  # contracts the first axis of space, puts positions last
        total = np.tensordot(total, visible, axes=([2], [1]))
    return total


def _visible(taps: Taps, axis: int) -> NDArray[np.float64]:
    """Which taps read inside the tensor, one row per kind of output position along an axis: float64[kinds, taps]."""
    s, k = taps.slide, taps.window[axis]
    if s.automatic not in ("NOTSET", "VALID"):
        return np.concatenate([np.eye(k), np.ones((1, k)), np.zeros((1, k))])  # any of them may be outside
    stride, dilation, begin, end = s.strides[axis], s.dilations[axis], s.begin[axis], s.end[axis]
    reach = dilation * (k - 1) + 1
    known = s.sizes[axis] if s.sizes else None
    rows: set[tuple[bool, ...]] = set()
    for size in _sizes(known, reach, stride):
        j = np.arange(k) * dilation
        if s.transposed:
            out = (size - 1) * stride + reach - begin - end + (s.extra[axis] if s.extra else 0)
            source = np.arange(out)[:, None] + begin - j
            inside = (source % stride == 0) & (source >= 0) & (source < size * stride)
        else:
            out = (size + begin + end - reach) // stride + 1
            source = np.arange(out)[:, None] * stride - begin + j
            inside = (source >= 0) & (source < size)
        rows.update(map(tuple, inside.tolist()))
    return np.array(sorted(rows) or [(True,) * k], dtype=np.float64)


def _sizes(known: int | None, reach: int, stride: int) -> list[int]:
    """Input sizes that show every kind of position that any size has, or that the known size has."""
    most = 2 * reach + 2 * stride
    if known is None:
        return list(range(1, most + stride + 1))
    return [known if known <= most + stride else most + (known - most) % stride]


def sum_of(a: Taps, b: Taps) -> Taps | None:
    """`a + b` as one linear map of the tensor both read; None where no kernel of one sliding window is that."""
    aligned = align(a, b)
    if aligned is None:
        return None
    one, two = aligned
    return replace(one, mid=one.mid + two.mid, err=one.err + two.err + NOISE * (np.abs(one.mid) + np.abs(two.mid)))


def align(a: Taps, b: Taps) -> tuple[Taps, Taps] | None:
    """Two maps of one tensor on the same groups and the same taps; None where they slide differently."""
    if (a.axis, a.rank, a.outs, a.ins) != (b.axis, b.rank, b.outs, b.ins):
        return None
    s, t = a.slide, b.slide
    alike = (s.strides, s.transposed, s.extra, s.automatic) == (t.strides, t.transposed, t.extra, t.automatic)
    same = alike and a.window == b.window and (s.dilations, s.begin, s.end) == (t.dilations, t.begin, t.end)
    if a.groups != b.groups:
        groups = math.gcd(a.groups, b.groups)
        a, b = _regrouped(a, groups), _regrouped(b, groups)
    if same:
        return a, b
    if not alike or s.transposed or s.automatic not in ("NOTSET", "VALID") or len(a.window) != len(b.window):
        return None
    if not _same_positions(a, b):
        return None
    return _boxed(a, b)


def _same_positions(a: Taps, b: Taps) -> bool:
    """Whether two kernels with the same strides have equally many output positions at every size there can be."""
    s = a.slide
    for i, (one, two) in enumerate(zip(a.positions(), b.positions(), strict=True)):
        assert one is not None
        assert two is not None
        size = s.sizes[i] if s.sizes else None
        if one == two:
            continue
        if size is None or (size + one - 1) // s.strides[i] != (size + two - 1) // s.strides[i]:
            return False
    return True


def _regrouped(taps: Taps, groups: int) -> Taps:
    """The same map with fewer groups: block-diagonal within each."""
    many = taps.groups // groups
    if many == 1:
        return taps
    mid, err = (
        np.zeros((groups, many, a.shape[1], many, *a.shape[2:]))
        for a in (taps.mid, np.broadcast_to(taps.err, taps.mid.shape))
    )
    for source, target in ((taps.mid, mid), (np.broadcast_to(taps.err, taps.mid.shape), err)):
        parts = source.reshape(groups, many, *source.shape[1:])
        for i in range(many):
            target[:, i, :, i] = parts[:, i]
    out, inner = taps.mid.shape[1] * many, taps.mid.shape[2] * many
    shape = (groups, out, inner, *taps.window)
    return replace(taps, mid=mid.reshape(shape), err=err.reshape(shape))


def _boxed(a: Taps, b: Taps) -> tuple[Taps, Taps]:
    """Both kernels on the smallest box of taps that holds the offsets of both."""
    places: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    begin, step, count = [], [], []
    for i in range(len(a.window)):
        offsets = [
            np.arange(taps.window[i], dtype=np.int64) * taps.slide.dilations[i] - taps.slide.begin[i] for taps in (a, b)
        ]
        every = np.unique(np.concatenate(offsets))
        unit = int(np.gcd.reduce(np.diff(every))) if len(every) > 1 else 1
        places.append(((offsets[0] - every[0]) // unit, (offsets[1] - every[0]) // unit))
        begin.append(-int(every[0]))
        step.append(unit)
        count.append(int((every[-1] - every[0]) // unit) + 1)
    end = [
        total - b0 + (k - 1) * d  # type: ignore[operator]
        for total, b0, k, d in zip(a.positions(), begin, count, step, strict=True)
    ]
    slide = replace(a.slide, dilations=tuple(step), begin=tuple(begin), end=tuple(end))
    both = []
    for n, taps in enumerate((a, b)):
        index = np.ix_(*(place[n] for place in places))
        arrays = []
        for source in (taps.mid, np.broadcast_to(taps.err, taps.mid.shape)):
            target = np.zeros((*source.shape[:3], *count))
            target[(slice(None),) * 3 + index] = source
            arrays.append(target)
        both.append(replace(taps, mid=arrays[0], err=arrays[1], slide=slide))
    return both[0], both[1]


def diagonal(scale: Bound, axis: int, rank: int, channels: int, like: Taps) -> Taps:
    """A scale per channel as a kernel of one tap that slides as `like` would without padding.

    Args:
        scale: float64[channels].
        axis: The channel axis.
        rank: Number of axes.
        channels: How many.
        like: A map of the same tensor.
    """
    n = len(like.window)
    mid, err = (np.broadcast_to(a, (channels,)).reshape(channels, 1, 1, *(1,) * n) for a in (scale.mid, scale.err))
    sizes = like.slide.sizes
    return Taps(mid, err, Slide((1,) * n, (1,) * n, (0,) * n, (0,) * n, sizes), axis, rank)
