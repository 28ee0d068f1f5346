"""ATen operators that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.nodes import arguments, element, fake, opname, results
from bnfold.reasons import Reason
from bnfold.units.graph import Concat, Expand, Op, Reshape, Rigid, Spatial, Table, Take, Transpose, Value, ZeroPad


def read_identity(node: fx.Node, ctx: Context) -> list[Op]:
    """Nothing happens, or only the shape changes: the result's shape says it all."""
    return [Reshape(ctx.label(node), _x(node), node)]


def read_permute(node: fx.Node, ctx: Context) -> list[Op]:
    """permute, transpose, t and their kin."""
    rank = ctx.rank(_x(node))
    named = arguments(node)
    order = list(range(rank))
    if opname(node) == "permute":
        order = [int(d) % rank for d in named["dims"]]
    elif "dim0" in named or "axis0" in named:
        a, b = (int(named[f"dim{i}"] if "dim0" in named else named[f"axis{i}"]) % max(rank, 1) for i in (0, 1))
        if rank:
            order[a], order[b] = order[b], order[a]
    elif opname(node) in ("mT", "adjoint", "matrix_H"):
        order[-2:] = order[:-3:-1]
    else:  # t, numpy_T
        order.reverse()
    return [Transpose(ctx.label(node), _x(node), node, tuple(order))]


def read_expand(node: fx.Node, ctx: Context) -> list[Op]:
    """expand: broadcast to a shape."""
    return [Expand(ctx.label(node), _x(node), node)]


def read_repeat(node: fx.Node, ctx: Context) -> list[Op]:
    """Repeat and tile: along channels, every copy must be alike."""
    x, shape, result = _x(node), ctx.shape(_x(node)), ctx.shape(node)
    lead = len(result) - len(shape)
    padded = (1,) * lead + shape
    axes = tuple(i for i, (a, b) in enumerate(zip(padded, result, strict=True)) if a != b)
    if not lead:
        return [Spatial(ctx.label(node), x, node, axes=axes)]
    wider = ctx.extra(node, "wider", padded)
    return [Reshape(f"{ctx.label(node)}#wider", x, wider), Spatial(ctx.label(node), wider, node, axes=axes)]


def read_repeat_interleave(node: fx.Node, ctx: Context) -> list[Op]:
    """repeat_interleave along one axis."""
    dim = arguments(node).get("dim")
    if dim is None or ctx.feature(arguments(node).get("repeats")):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    return [Spatial(ctx.label(node), _x(node), node, axes=(int(dim) % ctx.rank(_x(node)),))]


def read_cat(node: fx.Node, ctx: Context) -> list[Op]:
    """Cat of features and constants."""
    parts, dim = arguments(node)["tensors"], arguments(node).get("dim", 0)
    if any(len(ctx.shapes[p]) != ctx.rank(node) or _dtype(p) != _dtype(node) for p in parts):
        return ctx.rigid(node, Reason.BOUNDARY)  # an empty tensor of another rank, or a change of type
    return [_concat(ctx.label(node), node, parts, int(dim) % ctx.rank(node), ctx)]


def read_stack(node: fx.Node, ctx: Context) -> list[Op]:
    """stack: each part gets an axis of size 1, along which they then lie side by side."""
    parts, dim = arguments(node)["tensors"], int(arguments(node)["dim"]) % ctx.rank(node)
    if not all(ctx.feature(p) for p in parts) or any(_dtype(p) != _dtype(node) for p in parts):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    shape = tuple(1 if i == dim else size for i, size in enumerate(ctx.shape(node)))
    extras = [ctx.extra(node, f"part{i}", shape) for i in range(len(parts))]
    ops: list[Op] = [
        Reshape(f"{ctx.label(node)}#{i}", part, extra)
        for i, (part, extra) in enumerate(zip(parts, extras, strict=True))
    ]
    return [*ops, Concat(ctx.label(node), tuple(extras), node, dim)]


def _concat(label: str, node: fx.Node, parts: Sequence[fx.Node], axis: int, ctx: Context) -> Op:
    constants = {i: array for i, p in enumerate(parts) if (array := ctx.const(p)) is not None}
    if any(array.size == 0 for array in constants.values()):
        return ctx.rigid(node, Reason.BOUNDARY)[0]
    return Concat(label, tuple(None if ctx.is_const(p) else p for p in parts), node, axis, constants)


def read_split(node: fx.Node, ctx: Context) -> list[Op]:
    """split, chunk and the like: one slice per part that is used."""
    x, values = _x(node), node.meta["val"]
    axis = int(arguments(node)["dim"]) % ctx.rank(x)
    ops: list[Op] = []
    start: int | None = 0
    for i, value in enumerate(values):
        size, index = value.shape[axis], None
        if isinstance(size, int) and start is not None:
            index, start = np.arange(start, start + size, dtype=np.int64), start + size
        else:
            start = None
        for n, part in enumerate(element(node, i)):
            ops.append(Take(f"{ctx.label(node)}#{i}.{n}", x, part, axis, index))
    return ops


def read_unbind(node: fx.Node, ctx: Context) -> list[Op]:
    """unbind: each part is one element along an axis, which goes."""
    axis = int(arguments(node)["dim"]) % ctx.rank(_x(node))
    return [
        Take(f"{ctx.label(node)}#{i}.{n}", _x(node), part, axis, np.array(i, dtype=np.int64), keeps_axis=False)
        for i in range(len(node.meta["val"]))
        for n, part in enumerate(element(node, i))
    ]


def read_slice(node: fx.Node, ctx: Context) -> list[Op]:
    """Slice and narrow along one axis; computed bounds take from unknown places."""
    x, named = _x(node), arguments(node)
    axis = int(named["dim"]) % ctx.rank(x)
    size = ctx.shape(x)[axis]
    start, step = named["start"], named.get("step", 1)
    end = named["start"] + named["length"] if _plain(named.get("length"), start) else named.get("end")
    index = None
    if isinstance(size, int) and "length" in named and not _plain(named["length"], start):
        return [Take(ctx.label(node), x, node, axis, None)]
    if isinstance(size, int) and _plain(start or 0, end or 0, step):
        index = np.arange(size, dtype=np.int64)[slice(start, end, step)]
    if index is None and size == ctx.shape(node)[axis]:
        return read_identity(node, ctx)
    return [Take(ctx.label(node), x, node, axis, index)]


def read_select(node: fx.Node, ctx: Context) -> list[Op]:
    """One element along an axis, which goes."""
    x, named = _x(node), arguments(node)
    axis = int(named["dim"]) % ctx.rank(x)
    size, at = ctx.shape(x)[axis], named["index"]
    index = np.array(at % size, dtype=np.int64) if isinstance(size, int) and _plain(at) else None
    return [Take(ctx.label(node), x, node, axis, index, keeps_axis=False)]


def read_index_select(node: fx.Node, ctx: Context) -> list[Op]:
    """Some elements along one axis, at constant places."""
    x, named = _x(node), arguments(node)
    return _take(node, ctx, x, int(named["dim"]) % max(ctx.rank(x), 1), named["index"])


def read_index(node: fx.Node, ctx: Context) -> list[Op]:
    """Indexing by one list of places; more than one mixes axes."""
    x, places = _x(node), arguments(node)["indices"]
    given = [i for i, place in enumerate(places) if place is not None]
    if len(given) != 1 or not isinstance(places[given[0]], fx.Node) or not ctx.is_const(places[given[0]]):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    return _take(node, ctx, x, given[0], places[given[0]])


def _take(node: fx.Node, ctx: Context, x: fx.Node, axis: int, places: object) -> list[Op]:
    array, size = ctx.const(places), ctx.shape(x)[axis]
    if array is None and ctx.feature(places):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    if array is None or array.dtype.kind not in "iu":
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    index = np.asarray(array, dtype=np.int64)
    known = np.where(index < 0, index + size, index) if isinstance(size, int) else None
    return [Take(ctx.label(node), x, node, axis, known, keeps_axis=False)]


def read_flip(node: fx.Node, ctx: Context) -> list[Op]:
    """The elements of some axes backwards."""
    ops: list[Op] = []
    value: Value = _x(node)
    shape, dims = ctx.shape(_x(node)), [int(d) % ctx.rank(_x(node)) for d in arguments(node)["dims"]]
    for i, axis in enumerate(dims):
        size = shape[axis]
        index = np.arange(size, dtype=np.int64)[::-1] if isinstance(size, int) else None
        target: Value = node if i == len(dims) - 1 else ctx.extra(node, f"flip{i}", shape)
        ops.append(Take(f"{ctx.label(node)}#{i}", value, target, axis, index))
        value = target
    return ops or read_identity(node, ctx)


def read_roll(node: fx.Node, ctx: Context) -> list[Op]:
    """Elements moved around along some axes."""
    dims = [int(d) % ctx.rank(_x(node)) for d in arguments(node)["dims"]]
    return [Spatial(ctx.label(node), _x(node), node, axes=tuple(dims or range(ctx.rank(_x(node)))))]


def read_pad(node: fx.Node, ctx: Context) -> list[Op]:
    """Padding with zeros, or with elements of the tensor itself."""
    x, named, rank = _x(node), arguments(node), ctx.rank(_x(node))
    pads: Sequence[int] = named["pad"] if "pad" in named else named["padding"]
    mode = named.get("mode", "constant")
    if not _plain(*pads):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = int(pads[2 * i]), int(pads[2 * i + 1])
    if opname(node) in ("pad", "constant_pad_nd"):
        constant = mode == "constant" and any(size > 0 for size in (*before, *after))
        if constant and (named.get("value") or 0.0) != 0.0:
            return ctx.rigid(node, Reason.NONLINEAR)
        if constant:
            return [ZeroPad(ctx.label(node), x, node, tuple(before), tuple(after))]
    return [Spatial(ctx.label(node), x, node, axes=tuple(i for i in range(rank) if before[i] or after[i]))]


def read_pixel_shuffle(node: fx.Node, ctx: Context) -> list[Op]:
    """pixel_shuffle: the channels that become neighbours in space have one unit."""
    *lead, c, h, w = ctx.shape(_x(node))
    b = int(arguments(node)["upscale_factor"])
    assert isinstance(c, int)
    n, inner, k = tuple(lead), c // (b * b), len(lead)
    split = ctx.extra(node, "split", (*n, inner, b, b, h, w))
    mixed, alike = (ctx.extra(node, tag, (*n, inner, h, b, w, b)) for tag in ("mixed", "alike"))
    label, order = ctx.label(node), (*range(k), *(k + i for i in (0, 3, 1, 4, 2)))
    return [
        Reshape(f"{label}#split", _x(node), split),
        Transpose(f"{label}#mix", split, mixed, order),
        Spatial(f"{label}#alike", mixed, alike, axes=(k + 2, k + 4)),
        Reshape(label, alike, node),
    ]


def read_pixel_unshuffle(node: fx.Node, ctx: Context) -> list[Op]:
    """pixel_unshuffle: neighbours in space become channels with the unit they had."""
    *lead, c, _, _ = ctx.shape(_x(node))
    *_, rows, columns = ctx.shape(node)
    b, k = int(arguments(node)["downscale_factor"]), len(lead)
    split = ctx.extra(node, "split", (*lead, c, rows, b, columns, b))
    mixed = ctx.extra(node, "mixed", (*lead, c, b, b, rows, columns))
    label, order = ctx.label(node), (*range(k), *(k + i for i in (0, 2, 4, 1, 3)))
    return [
        Reshape(f"{label}#split", _x(node), split),
        Transpose(f"{label}#mix", split, mixed, order),
        Reshape(label, mixed, node),
    ]


def read_channel_shuffle(node: fx.Node, ctx: Context) -> list[Op]:
    """channel_shuffle: groups of channels dealt out in turn."""
    n, c, *space = ctx.shape(_x(node))
    groups = int(arguments(node)["groups"])
    assert isinstance(c, int)
    split = ctx.extra(node, "split", (n, groups, c // groups, *space))
    mixed = ctx.extra(node, "mixed", (n, c // groups, groups, *space))
    label, order = ctx.label(node), (0, 2, 1, *range(3, 3 + len(space)))
    return [
        Reshape(f"{label}#split", _x(node), split),
        Transpose(f"{label}#mix", split, mixed, order),
        Reshape(label, mixed, node),
    ]


def read_embedding(node: fx.Node, ctx: Context) -> list[Op]:
    """Rows of a constant table that nothing else reads."""
    stored = arguments(node)["weight"]
    table = ctx.const(stored)
    if table is None or len(ctx.readers(stored)) != 1 or ctx.entangled(stored) or node.name in ctx.held:
        return ctx.rigid(node, Reason.SHARED_WEIGHT)
    held: list[Op] = [Rigid(f"{ctx.label(node)}#places", ctx.features(node), (), Reason.NONLINEAR)]
    return [*held, Table(ctx.label(node), node, ctx.rank(node) - 1, table.shape[-1], ctx.identity(stored))]


def read_nothing(node: fx.Node, ctx: Context) -> list[Op]:
    """Sizes and assertions do not look at values."""
    return [Rigid(ctx.label(node), (), results(node), Reason.BOUNDARY)]


def _plain(*values: object) -> bool:
    """Whether arguments are numbers known before a run."""
    return all(isinstance(v, int) for v in values)


def _dtype(node: fx.Node) -> object:
    tensor = fake(node)
    return None if tensor is None else tensor.dtype


def _x(node: fx.Node) -> fx.Node:
    value = node.args[0]
    assert isinstance(value, fx.Node)
    return value
