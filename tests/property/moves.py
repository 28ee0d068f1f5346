"""Moves: each adds one of the laws' operators, or one small block of them, to a random graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from .walk import MAX_CHANNELS, Walk

MAX_NORMS = 8
MAX_FEATURES = 150
KINDS = [*["positive"] * 6, *["mixed"] * 2, "negative", "uniform", *["scale_only"] * 2, "shift_only", "identity"]
RELATIVES = [*["copy"] * 2, "shared", *["same_scale"] * 2, *["same_zero"] * 2, "inverse"]
RELATIVES_OF_ZEROS = ["copy", "shared", "same_scale"]


def nothing(w: Walk) -> None:
    """What shrinking turns a move into."""


def norm(w: Walk, x: str | None = None) -> str:
    x = x or w.normable()
    norms = [index for index, step in enumerate(w.b.steps) if step.op == "bn"]
    w.need(len(norms) < MAX_NORMS)
    likes = [index for index in norms if len(w.b.steps[index].consts["var"]) == w.b.channels(x)]
    if likes and w.sometimes(3):
        like = w.choose(likes)
        has_zeros = not np.all(w.b.steps[like].consts["gamma"])
        return w.b.bn(x, w.choose(RELATIVES_OF_ZEROS if has_zeros else RELATIVES), like)
    return w.b.bn(x, w.choose([*KINDS, "zero", "zero", "dead", "stuck"] if w.anything else KINDS))


def conv(w: Walk, x: str | None = None) -> str:
    x = x or w.image()
    c, bias, out = w.b.channels(x), not w.sometimes(3), w.choose([2, 3, 4])
    form = w.choose(["pointwise", "full", "full", "full", "groups", "depthwise", "dilated"])
    if form == "pointwise":
        return w.b.conv(x, out, strides=w.choose([(1, 1), (1, 1), (2, 2)]), bias=bias)
    if form == "dilated" and min(w.b.shape(x)[1:]) >= 3:
        pads = w.choose([(0, 0, 0, 0), (2, 2, 2, 2), (1, 1, 1, 1)])
        return w.b.conv(x, out, (2, 2), pads, dilations=(2, 2), bias=bias)
    if form == "depthwise":
        return w.b.conv(x, c * w.choose([1, 1, 2]), groups=c, bias=bias, **w.window(x))
    if form == "groups" and c % 2 == 0:
        return w.b.conv(x, w.choose([2, 4]), groups=2, bias=bias, **w.window(x))
    return w.b.conv(x, out, bias=bias, **w.window(x))


def same_conv(w: Walk, x: str) -> str:
    bias = not w.sometimes(3)
    if w.sometimes(2):
        return w.b.conv(x, w.b.channels(x), (3, 3), (1, 1, 1, 1), bias=bias)
    return w.b.conv(x, w.b.channels(x), bias=bias)


def conv_transpose(w: Walk) -> str:
    x = w.image()
    w.need(w.can_double(x))
    c = w.b.channels(x)
    groups = w.choose([1, 1, 2 if c % 2 == 0 else 1, c])
    kernel, strides, pads, extra = w.choose([
        ((2, 2), (2, 2), (0, 0, 0, 0), (0, 0)),
        ((1, 1), (1, 1), (0, 0, 0, 0), (0, 0)),
        ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
        ((3, 2), (1, 2), (1, 0, 1, 0), (0, 0)),
        ((2, 2), (1, 1), (0, 1, 0, 0), (0, 0)),
    ])  # fmt: skip
    for axis, size in enumerate(w.b.shape(x)[1:]):
        w.need((size - 1) * strides[axis] + kernel[axis] - pads[axis] - pads[axis + 2] >= 1)
    out = groups * w.choose([1, 2]) if groups > 1 else w.choose([2, 3, 4])
    w.need(out <= MAX_CHANNELS)
    return w.b.conv_transpose(x, out, kernel, pads, strides, extra, groups, bias=not w.sometimes(3))


def const(w: Walk) -> str:
    x, kind = w.tensor(), w.choose(["mul", "add", "sub", "div"])
    form = w.choose(["channel", "channel1", "scalar"])
    return w.b.const(x, kind, form, kind != "div" and w.sometimes(2), positive=not w.sometimes(3))


def table(w: Walk) -> str:
    return w.b.table(w.tensor(), w.choose(["add", "sub"]), w.sometimes(2))


def bend(w: Walk, x: str | None = None) -> str:
    x = x or w.tensor()
    kind = w.choose(["relu", "relu", "relu", "leaky_relu", "prelu", "prelu1", "abs"])
    if kind == "leaky_relu":
        return w.b.op("leaky_relu", x, alpha=0.25)
    return w.b.prelu(x, scalar=kind == "prelu1") if kind.startswith("prelu") else w.b.op(kind, x)


def rigid(w: Walk) -> str:
    return w.b.op("rigid", w.normable(), kind=w.choose(["Sigmoid", "Tanh", "Softplus", "Clip", "Softmax"]))


def pool(w: Walk) -> str:
    x, op = w.image(), w.choose(["max_pool", "average_pool", "average_pool", "global_average_pool"])
    if op == "global_average_pool":
        return w.b.op(op, x)
    return w.b.pool(x, op, count_include_pad=op == "average_pool" and w.sometimes(2), **w.window(x))


def resample(w: Walk) -> str:
    x, kind = w.image(), w.choose(["constant", "constant", "edge", "reflect", "resize"])
    w.need(w.can_double(x) and (kind != "reflect" or min(w.b.shape(x)[1:]) >= 2))
    if kind == "resize":
        return w.b.op("resize", x)
    return w.b.op("pad", x, pads=w.choose([(1, 1, 1, 1), (0, 1, 0, 0)]), mode=kind)


def identity(w: Walk) -> str:
    return w.b.op("identity", w.tensor())


def pair(w: Walk) -> str:
    x, op = w.tensor(), w.choose(["add", "add", "add", "add", "sub", "max"])
    if op == "add" and w.is_image(x) and w.sometimes(8):
        wanted = (w.b.channels(x), 1, 1)
        small = w.pick(w.names(lambda name: w.is_image(name) and w.b.shape(name) == wanted))
        return w.b.op(op, *w.draw(st.permutations((x, small))))
    return w.b.op(op, x, w.twin(x))


def gate(w: Walk) -> str:
    x = w.image()
    c, *side = w.b.shape(x)
    fitting = ((c, *side), (c, 1, 1), (1, *side))
    rigids = [step.writes[0] for step in w.b.steps if step.op == "rigid"]
    gates = [name for name in rigids[::-1] if w.is_image(name) and w.b.shape(name) in fitting]
    if gates:
        return w.b.op("gate", x, w.pick(gates))
    squeezed = w.b.conv(w.b.op("global_average_pool", x), c)
    return w.b.op("gate", x, w.b.op("rigid", squeezed, kind="Sigmoid"))


def concat(w: Walk) -> str:
    x = w.image()
    side = w.b.shape(x)[1:]
    parts = [x]
    for _ in range(w.choose([1, 1, 2])):
        parts.append(w.pick(w.names(lambda name: w.is_image(name) and w.b.shape(name)[1:] == side)))
    w.need(sum(map(w.b.channels, parts)) < MAX_CHANNELS)
    return w.b.concat(*parts, constant=1 if w.sometimes(8) else 0)


def cut(w: Walk) -> str:
    x = w.pick(w.names(lambda name: w.b.axes[name] == 1 and 2 <= w.b.channels(name) <= MAX_CHANNELS))
    c = w.b.channels(x)
    if w.sometimes(3):
        indices = w.draw(st.lists(st.integers(0, c - 1), min_size=1, max_size=4))
        return w.b.op("gather", x, indices=tuple(indices))
    first = w.draw(st.integers(1, c - 1))
    return w.b.split(x, (first, c - first))[0]


def flatten(w: Walk) -> str:
    return w.b.op("flatten", w.pick(w.names(lambda n: w.is_image(n) and np.prod(w.b.shape(n)) <= MAX_FEATURES)))


def dense(w: Walk) -> str:
    features = w.names(lambda name: w.b.values[name].ndim == 2)
    x, out = w.pick(features) if features else flatten(w), w.choose([2, 3, 4])
    if w.sometimes(3):
        return w.b.const(w.b.matmul(x, out), "add")
    alpha, beta = w.choose([(1.0, 1.0), (0.5, 1.0), (1.0, -1.5), (2.0, 0.25)])
    bias = w.choose([(-1,), None, (), (1,), (1, -1), (1, 1)])
    y = w.b.gemm(x, out, alpha, beta, w.sometimes(2), bias)
    if out == 4 and w.sometimes(4):
        return w.b.op("reshape", y, shape=w.choose([(-1, 4, 1, 1), (-1, 2, 2, 1)]))
    return y


def tokens(w: Walk) -> str:
    y = w.b.tokens(w.image())
    if w.sometimes(2):
        y = w.b.matmul(y, w.choose([2, 3, 4]))
    if w.sometimes(2):
        y = w.b.const(y, w.choose(["add", "mul"]))
    if w.sometimes(3):
        return y
    length = w.b.shape(y)[0]
    y = norm(w, w.b.rows(y))
    if w.sometimes(2):
        y = bend(w, y)
    if w.sometimes(2):
        y = w.b.matmul(y, w.choose([2, 3]))
    if w.sometimes(2):
        y = w.b.op("reshape", y, shape=(-1, length, w.b.channels(y)), channel_axis=2)
    return y


def classic(w: Walk) -> str:
    y = norm(w, conv(w))
    return y if w.sometimes(3) else bend(w, y)


def residual(w: Walk) -> str:
    x = y = w.image()
    for part in w.choose([
        (norm, bend, same_conv),
        (norm, bend, same_conv, norm, bend, same_conv),
        (norm, same_conv, norm, bend, same_conv, norm),
        (same_conv, norm),
        (norm, same_conv),
        (norm,),
    ]):  # fmt: skip
        y = part(w, y)
    return w.b.op("add", *w.draw(st.permutations((x, y))))


def branches(w: Walk) -> str:
    """Two readers of one tensor, each with its own BatchNorm, summed."""
    x = w.image()
    y = norm(w, same_conv(w, x) if w.sometimes(2) else x)
    z = norm(w, same_conv(w, x) if w.sometimes(2) else x)
    return w.b.op("add", y, z)


def parallel(w: Walk) -> str:
    """Branches of one tensor in a tree of sums: convolutions, averages, affines, the tensor itself."""
    x = w.image()
    c = w.b.channels(x)

    def branch() -> str:
        form = w.choose(["conv", "conv", "depthwise", "groups", "dilated", "pool", "affine", "self"])
        bias, size = not w.sometimes(2), w.choose([1, 3, 3])
        pads = w.choose([(size // 2,) * 4, (size // 2,) * 4, (0, 0, size - 1, size - 1)])
        if form == "affine":
            return w.b.const(x, "mul") if w.sometimes(3) else norm(w, x)
        if form == "self":
            return x
        if form == "pool":
            y = w.b.pool(x, "average_pool", (3, 3), (1,) * 4, count_include_pad=True)
        elif form == "dilated":
            y = w.b.conv(x, c, (2, 2), (1,) * 4, dilations=(2, 2), bias=bias)
        else:
            groups = {"depthwise": c, "groups": 2 if c % 2 == 0 else 1}.get(form, 1)
            source = norm(w, x) if w.sometimes(6) else x
            y = w.b.conv(source, c, (size, size), pads, groups=groups, bias=bias)
        return norm(w, y) if w.sometimes(2) else y

    parts = [branch() for _ in range(w.choose([2, 3, 3, 4]))]
    while len(parts) > 1:
        y = w.b.op(w.choose(["add", "add", "sub"]), parts.pop(), parts.pop())
        parts.append(w.b.const(y, "mul") if w.sometimes(5) else y)
        parts = list(w.draw(st.permutations(parts)))
    return norm(w, parts[0]) if w.sometimes(3) else parts[0]


def reuse(w: Walk, step: int, x: str) -> str:
    """An earlier convolution's or matrix's weight on another tensor."""
    earlier = w.b.steps[step]
    if earlier.op == "matmul":
        return w.b.matmul(x, share=step)
    attrs = dict(earlier.attrs)
    for axis, size in enumerate(w.b.shape(x)[1:]):
        w.need(size >= attrs["dilations"][axis] * (attrs["kernel"][axis] - 1) + 1)
    return w.b.conv(x, share=step, bias=not w.sometimes(3), **attrs)


def shared(w: Walk) -> str:
    """One weight on another tensor, or on the same once more; often with a BatchNorm of its own."""
    uses = [i for i, step in enumerate(w.b.steps) if step.op in ("conv", "matmul")]
    w.need(bool(uses))
    step = w.choose(uses[-6:])
    own = w.b.steps[step].reads[0]
    fitting = w.names(
        lambda name: (
            w.b.values[name].ndim == w.b.values[own].ndim
            and w.b.axes[name] == w.b.axes[own]
            and w.b.channels(name) == w.b.channels(own)
            and (w.b.steps[step].op == "conv" or w.b.values[name].shape[-1] == w.b.values[own].shape[-1])
        )
    )
    x = w.pick(fitting)
    y = reuse(w, step, norm(w, x) if w.b.axes[x] == 1 and w.sometimes(4) else x)
    return norm(w, y) if w.b.axes[y] == 1 and not w.sometimes(3) else y


def levels(w: Walk) -> str:
    """A detector's head: the same convolutions on several tensors, each level with BatchNorms of its own."""
    x = w.image()
    wanted = w.names(lambda name: w.is_image(name) and w.b.channels(name) == w.b.channels(x))
    depth, act = w.choose([1, 1, 2]), w.sometimes(2)
    convs: list[int] = []
    for level in (x, *(w.pick(wanted) for _ in range(w.choose([1, 1, 2])))):
        y = level
        for at in range(depth):
            if level is x:
                convs.append(len(w.b.steps))
                y = same_conv(w, y)
            else:
                y = reuse(w, convs[at], y)
            y = norm(w, y)
            y = bend(w, y) if act else y
    return y


SHARING: list[Callable[[Walk], str]] = [*[shared] * 12, *[levels] * 6]

OPENERS: list[Callable[[Walk], str]] = [norm, classic, branches, parallel, residual, residual]

MOVES: list[Callable[[Walk], str | None]] = [
    nothing, *[norm] * 6, *[classic] * 4, *[residual] * 5, *[branches] * 2, *[parallel] * 3, *[conv] * 3,
    *[conv_transpose] * 2, *[bend] * 3, *[pair] * 6, *[pool] * 4, *[concat] * 2, *[const] * 2, *[cut] * 2,
    *[dense] * 2, flatten, *[gate] * 2, rigid, *[resample] * 3, identity, table, tokens,
]  # fmt: skip
