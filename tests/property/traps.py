"""Traps: operators along other axes than the channels', and constants that are not what they look like.

They break naive pattern rules. What may fold next to them is not asserted, only that the function stays the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .moves import reuse
from .naive import Array
from .walk import MAX_SIDE, Walk


def _constant(w: Walk, *shape: int) -> Array:
    return np.random.default_rng((w.b.seed, 7, len(w.b.steps))).uniform(0.7, 1.4, shape)


def last_axis(w: Walk) -> str:
    """A constant of shape (W,) where W = C: it aligns with the last axis, not with the channels."""
    x = w.pick(w.names(lambda name: w.is_image(name) and w.b.shape(name)[2] == w.b.channels(name)))
    value = _constant(w, w.b.channels(x))
    return w.b.add_step("const", x, consts={"value": value}, kind=w.choose(["mul", "add"]), reverse=False)[0]


def whole(w: Walk) -> str:
    """Mul or Div by a constant of the whole shape: not per channel."""
    x = w.tensor()
    value = _constant(w, 1, *w.b.shape(x))
    return w.b.add_step("table", x, consts={"value": value}, kind=w.choose(["mul", "div"]), reverse=False)[0]


def reciprocal(w: Walk) -> str:
    """Constant / x is not affine."""
    return w.b.const(
        w.b.op("rigid", w.normable(), kind="Sigmoid"), "div", w.choose(["channel", "scalar"]), reverse=True
    )


def mix(w: Walk) -> str:
    """MatMul on an image mixes columns, not channels."""
    x = w.image()
    return w.b.matmul(x, w.choose([w.b.shape(x)[2], 2, 3]))


def token_norm(w: Walk) -> str:
    """BatchNormalization of tokens normalises positions."""
    return w.b.bn(w.b.tokens(w.image()))


def stack(w: Walk) -> str:
    """Concat along the height."""
    x = w.image()
    w.need(2 * w.b.shape(x)[1] <= MAX_SIDE)
    return w.b.concat(x, w.twin(x), axis=2)


def rows(w: Walk) -> str:
    """Split along the height."""
    x = w.image()
    w.need(w.b.shape(x)[1] > 1)
    return w.b.split(x, (1, w.b.shape(x)[1] - 1), axis=2)[1]


def turn(w: Walk) -> str:
    """Transpose that puts another axis in the channels' place."""
    return w.b.op("transpose", w.image(), perm=w.choose([(0, 2, 1, 3), (0, 3, 2, 1), (0, 2, 3, 1), (0, 3, 1, 2)]))


def mangle(w: Walk) -> str:
    """Reshape that cuts channels at other places."""
    x = w.image()
    c, height, width = w.b.shape(x)
    return w.b.op("reshape", x, shape=(-1, height, c, width))


def twins(w: Walk) -> str:
    """Two convs with one weight."""
    x = w.image()
    convs = [i for i, s in enumerate(w.b.steps) if s.op == "conv" and w.b.channels(s.reads[0]) == w.b.channels(x)]
    w.need(bool(convs))
    return reuse(w, w.choose(convs), x)


def product(w: Walk) -> str:
    """Mul of two tensors, neither of them a gate by itself."""
    x = w.tensor()
    return w.b.op("gate", x, w.twin(x))


TRAPS: list[Callable[[Walk], str]] = [
    last_axis, whole, reciprocal, mix, token_norm, stack, rows, turn, mangle, twins, twins, product,
]  # fmt: skip
