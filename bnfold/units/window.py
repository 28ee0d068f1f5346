"""How a convolution slides, and which taps of its kernel each output position reads.

The response of a convolution to a constant image depends on the position only through that set of taps. An inner
position of a Conv reads them all; near a padding of zeros some fall outside; a ConvTranspose with a stride reads every
stride-th one. Sets of taps factorise over the spatial axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.units.affine import Kernel

Mask = NDArray[np.bool_]


FARTHEST = 1 << 16  # elements that a tap, a stride or padding may reach over


@dataclass(frozen=True)
class Window:
    """How a convolution or pooling slides: one entry per spatial axis.

    Attributes:
        kernel: Number of taps.
        strides: Steps of the output on the input (of the input on the output when `transposed`).
        dilations: Distance between taps.
        pads_begin: Zeros before the first element (elements cut off there when `transposed`).
        pads_end: Zeros after the last.
        sizes: Input sizes, None where unknown.
        transposed: Whether this is a ConvTranspose.
        output_padding: Extra output elements at the end (ConvTranspose).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    sizes: tuple[int | None, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    def patterns(self) -> tuple[Mask, ...]:
        """The sets of taps that occur, per spatial axis; worked out once for each way of sliding.

        Returns:
            One bool[patterns, taps] per axis, the first row that of an inner position. Where the input size is not
            known, every size counts.
        """
        return _patterns(self)

    @property
    def slides(self) -> bool:
        """Whether there is an output position for what is known of the input, and the numbers are those of a network.

        A file may ask for padding of 2³¹, whose positions nobody could look at one by one.
        """
        if max(*self.strides, *self.pads_begin, *self.pads_end, *self.output_padding, 0) > FARTHEST:
            return False
        reaches = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        if max(*reaches, 0) > FARTHEST or min(*self.kernel, 1) < 1:
            return False
        extra = self.output_padding or (0,) * len(self.kernel)
        for size, stride, reach, begin, end, more in zip(
            self.sizes, self.strides, reaches, self.pads_begin, self.pads_end, extra, strict=True
        ):
            if size is None:
                continue
            full = (
                (size - 1) * stride + reach - begin - end + more if self.transposed else size + begin + end - reach + 1
            )
            if full < 1:
                return False
        return True

    @property
    def uniform(self) -> bool:
        """Whether every output position plainly reads all taps."""
        return not self.transposed and not any(self.pads_begin) and not any(self.pads_end)

    def _axis_patterns(self, i: int) -> Mask:
        reach = self.dilations[i] * (self.kernel[i] - 1) + 1
        pads = max(self.pads_begin[i], 0) + max(self.pads_end[i], 0)
        stride = self.strides[i]
        large = 2 * (reach + pads + stride)
        size = self.sizes[i]
        if size is None:
            sizes = range(large, large + (1 if self.transposed or not pads else stride))
        else:
            sizes = range(size, size + 1) if size < large else range(at := large + (size - large) % stride, at + 1)
        rows = [self._tap_rows(i, n) for n in sizes]
        middle: Mask = rows[0][len(rows[0]) // 2 : len(rows[0]) // 2 + 1]
        distinct = {row.tobytes(): row for some in rows for row in some}
        distinct.pop(middle.tobytes(), None)
        patterns: Mask = np.concatenate([middle, *(row[None] for row in distinct.values())])
        return patterns

    def _tap_rows(self, i: int, size: int) -> Mask:
        """For each output position, which taps meet an element of an input of this size: bool[positions, taps]."""
        taps = np.arange(self.kernel[i]) * self.dilations[i]
        reach = int(taps[-1]) + 1
        if self.transposed:
            extra = self.output_padding[i] if self.output_padding else 0
            full = (size - 1) * self.strides[i] + reach
            positions = np.arange(self.pads_begin[i], full - self.pads_end[i] + extra)
            offset = positions[:, None] - taps
            source = offset // self.strides[i]
            live: Mask = (offset % self.strides[i] == 0) & (source >= 0) & (source < size)
            return live
        count = (size + self.pads_begin[i] + self.pads_end[i] - reach) // self.strides[i] + 1
        source = np.arange(max(count, 0))[:, None] * self.strides[i] - self.pads_begin[i] + taps
        inside: Mask = (source >= 0) & (source < size)
        return inside


def convolution_kernel(weight: NDArray[Any], groups: int, window: Window, transposed: bool) -> Kernel:
    """The weights of a convolution as ONNX and PyTorch both store them.

    Args:
        weight: `[out, in/groups, *taps]`, or `[in, out/groups, *taps]` when transposed.
        groups: Number of groups.
        window: How it slides.
        transposed: Whether it is a transposed convolution.
    """
    return Kernel(
        lambda: weight,
        weight.shape,
        out_axis=1 if transposed else 0,
        in_axis=0 if transposed else 1,
        groups=groups,
        groups_on_input=transposed,
        reference=None if window.uniform else tuple(p[0] for p in window.patterns()),
    )


@lru_cache(maxsize=4096)
def _patterns(window: Window) -> tuple[Mask, ...]:
    return tuple(window._axis_patterns(i) for i in range(len(window.kernel)))
