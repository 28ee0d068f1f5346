"""A random graph in the making: what Hypothesis draws, and which tensors there are to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .naive import out_size
from .spec import Builder

MAX_CHANNELS = 8
MAX_SIDE = 8
LIMIT = 1e4
RECENT = [0, 0, 0, 0, 1, 1, 2, 3, 5, 8]

Draw = Callable[[st.SearchStrategy[Any]], Any]


class NoFit(Exception):
    """A move finds nothing to work on; the graph goes on without it."""


class Walk:
    """One random graph in the making.

    Attributes:
        b: The graph so far.
        anything: Whether zero gammas and traps may come.
    """

    def __init__(self, draw: Draw, *, anything: bool) -> None:
        self.draw = draw
        self.anything = anything
        self.b = Builder(draw(st.integers(0, 2**32 - 1)))

    def choose(self, options: Sequence[Any]) -> Any:
        """One of the options; shrinks to the first."""
        return self.draw(st.sampled_from(options))

    def sometimes(self, one_in: int) -> bool:
        """True once in a while; shrinks to False."""
        return bool(self.draw(st.integers(0, one_in - 1)) == one_in - 1)

    def need(self, condition: bool) -> None:
        """Gives this move up unless the condition holds."""
        if not condition:
            raise NoFit

    def names(self, keep: Callable[[str], bool]) -> list[str]:
        """The tensors of a kind, the latest first."""
        good = [name for name in self.b.values if keep(name) and np.abs(self.b.values[name]).max() < LIMIT]
        return good[::-1]

    def pick(self, names: Sequence[str]) -> str:
        """One of these tensors, more often a late one."""
        self.need(bool(names))
        return names[min(self.choose(RECENT), len(names) - 1)]

    def is_image(self, name: str) -> bool:
        """Whether a tensor is float64[N, C, H, W]."""
        return self.b.values[name].ndim == 4

    def image(self) -> str:
        """Some image."""
        return self.pick(self.names(self.is_image))

    def normable(self) -> str:
        """Some tensor with its channels on axis 1."""
        return self.pick(self.names(lambda name: self.b.axes[name] == 1))

    def tensor(self) -> str:
        """Some tensor."""
        return self.pick(self.names(lambda name: True))

    def twin(self, x: str) -> str:
        """Another tensor of the same shape, or the same where there is none."""
        shape, axis = self.b.values[x].shape, self.b.axes[x]
        same = self.names(lambda name: self.b.values[name].shape == shape and self.b.axes[name] == axis)
        return self.pick([name for name in same if name != x] or same)

    def can_double(self, x: str) -> bool:
        """Whether an image may become twice as large."""
        return 2 * max(self.b.shape(x)[1:]) <= MAX_SIDE

    def window(self, x: str) -> dict[str, Any]:
        """Kernel, strides and padding of a convolution or pooling that fits an image."""
        kernel = self.choose([(1, 1), (3, 3), (2, 2), (1, 3), (2, 3)])
        strides = self.choose([(1, 1), (1, 1), (2, 2), (1, 2)])
        pads = self.choose([(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (0, 1, 0, 1), (1, 0, 0, 0)])
        pads = tuple(min(pad, kernel[i % 2] - 1) for i, pad in enumerate(pads))
        for axis, size in enumerate(self.b.shape(x)[1:]):
            self.need(out_size(size, kernel[axis], strides[axis], 1, pads[axis], pads[axis + 2]) >= 1)
        return {"kernel": kernel, "strides": strides, "pads": pads}
