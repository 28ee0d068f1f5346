"""ONNX operators that move elements without changing them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.frontends.context import Context, attr, ints
from bnfold.reasons import Reason
from bnfold.units.graph import Concat, Expand, Op, Reshape, Rigid, Spatial, Take, Transpose, Value, ZeroPad


def read_identity(node: ir.Node, ctx: Context) -> list[Op]:
    """Nothing happens."""
    return [Reshape(ctx.label(node), _x(node), node.outputs[0])]


def read_reshape(node: ir.Node, ctx: Context) -> list[Op]:
    """Reshape, Flatten, Squeeze, Unsqueeze: the output's shape says it all."""
    return [Reshape(ctx.label(node), _x(node), node.outputs[0])]


def read_transpose(node: ir.Node, ctx: Context) -> list[Op]:
    """Transpose; without `perm`, all axes are reversed."""
    rank = ctx.rank(_x(node)) or 0
    return [Transpose(ctx.label(node), _x(node), node.outputs[0], ints(node, "perm", tuple(reversed(range(rank)))))]


def read_expand(node: ir.Node, ctx: Context) -> list[Op]:
    """Expand: broadcast to a shape."""
    return [Expand(ctx.label(node), _x(node), node.outputs[0])]


def read_shape(node: ir.Node, ctx: Context) -> list[Op]:
    """Shape and Size do not look at values."""
    return [Rigid(ctx.label(node), (), tuple(node.outputs), Reason.BOUNDARY)]


def read_concat(node: ir.Node, ctx: Context) -> list[Op]:
    """Concat of features and constants."""
    parts = [v for v in node.inputs if v is not None]
    rank = ctx.rank(node.outputs[0])
    assert rank is not None
    xs = tuple(None if ctx.is_const(v) else v for v in parts)
    constants = {i: array for i, v in enumerate(parts) if (array := ctx.const(v)) is not None}
    if all(x is None for x in xs):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    if any(array.size == 0 for array in constants.values()):
        return ctx.rigid(node, Reason.BOUNDARY)
    return [Concat(ctx.label(node), xs, node.outputs[0], int(attr(node, "axis", 1)) % rank, constants)]


def read_split(node: ir.Node, ctx: Context) -> list[Op]:
    """Split: one slice per output."""
    x, shape = _x(node), ctx.shape(_x(node))
    assert shape is not None
    axis = int(attr(node, "axis", 0)) % len(shape)
    ops: list[Op] = []
    start: int | None = 0
    for i, output in enumerate(node.outputs):
        size = (ctx.shape(output) or (None,) * len(shape))[axis]
        index = None
        if isinstance(size, int) and start is not None:
            index, start = np.arange(start, start + size, dtype=np.int64), start + size
        else:
            start = None
        ops.append(Take(f"{ctx.label(node)}#{i}", x, output, axis, index))
    return ops


def read_slice(node: ir.Node, ctx: Context) -> list[Op]:
    """Slice of every opset: one step per axis."""
    x, shape, result = _x(node), ctx.shape(_x(node)), ctx.shape(node.outputs[0])
    assert shape is not None
    assert result is not None
    rank = len(shape)
    if len(node.inputs) > 1:
        known = ctx.constants([*node.inputs[1:5], *[None] * 4][:4])
        named = [v is not None for v in [*node.inputs[1:5], *[None] * 4][:4]]
        if any(here and array is None for here, array in zip(named, known, strict=True)):
            return _unknown_slices(node, ctx)
        starts, ends, axes, steps = (None if a is None else [int(v) for v in a.reshape(-1)] for a in known)
    else:
        starts, ends = list(ints(node, "starts", ())), list(ints(node, "ends", ()))
        axes, steps = (list(ints(node, "axes", ())) or None), None
    assert starts is not None
    assert ends is not None
    axes = [a % rank for a in (axes if axes is not None else range(len(starts)))]
    steps = steps if steps is not None else [1] * len(starts)
    ops: list[Op] = []
    value: Value = x
    sizes = list(shape)
    for i, axis in enumerate(axes):
        size = sizes[axis]
        index = None
        if isinstance(size, int):
            index = np.arange(size, dtype=np.int64)[slice(*_bounds(starts[i], ends[i], steps[i], size))]
        sizes[axis] = len(index) if index is not None else result[axis]
        target: Value = node.outputs[0] if i == len(axes) - 1 else ctx.extra(node, f"slice{i}", sizes)
        ops.append(Take(f"{ctx.label(node)}#{i}", value, target, axis, index))
        value = target
    return ops or read_identity(node, ctx)


def _bounds(start: int, end: int, step: int, size: int) -> tuple[int | None, int | None, int]:
    """ONNX slice bounds as Python's: where a backward slice runs past the front, Python writes None."""
    start = max(start + size, -1 if step < 0 else 0) if start < 0 else start
    if step < 0 and end < 0:
        end += size
        return start, None if end < 0 else end, step
    return start, end, step


def _unknown_slices(node: ir.Node, ctx: Context) -> list[Op]:
    """A slice with computed bounds: an axis whose size may change is taken from at unknown places."""
    shape, result = ctx.shape(_x(node)) or (), ctx.shape(node.outputs[0]) or ()
    changed = [i for i, (a, b) in enumerate(zip(shape, result, strict=True)) if a != b]
    axes_value = node.inputs[3] if len(node.inputs) > 3 else None
    named = ctx.const(axes_value) if axes_value is not None else None
    axes = sorted({int(a) % len(shape) for a in named.reshape(-1)} if named is not None else set(changed))
    if named is None and axes_value is not None:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    if named is None:
        axes = list(range(len(shape)))
    ops: list[Op] = []
    value: Value = _x(node)
    sizes = list(shape)
    for i, axis in enumerate(axes):
        sizes[axis] = result[axis]
        target: Value = node.outputs[0] if i == len(axes) - 1 else ctx.extra(node, f"slice{i}", sizes)
        ops.append(Take(f"{ctx.label(node)}#{i}", value, target, axis, None))
        value = target
    return ops


def read_pad(node: ir.Node, ctx: Context) -> list[Op]:
    """Pad: with zeros, or with elements of the tensor itself."""
    x, rank = _x(node), ctx.rank(_x(node))
    assert rank is not None
    mode = attr(node, "mode", "constant")
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = ctx.const(node.inputs[1])
        if array is None:
            return ctx.rigid(node, Reason.NOT_CONSTANT)
        pads = [int(v) for v in array.reshape(-1)]
        fill_value = node.inputs[2] if len(node.inputs) > 2 else None
        fill = ctx.const(fill_value) if fill_value is not None else np.zeros(1)
        axes_value = node.inputs[3] if len(node.inputs) > 3 else None
        named = ctx.const(axes_value) if axes_value is not None else np.arange(rank)
    else:
        pads = list(ints(node, "pads", ints(node, "paddings", ())))
        fill, named = np.full(1, float(attr(node, "value", 0.0))), np.arange(rank)
    if fill is None or named is None:
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    axes = [int(a) % rank for a in np.asarray(named).reshape(-1)]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    padded = tuple(i for i in range(rank) if before[i] or after[i])
    if mode != "constant" or all(size <= 0 for size in (*before, *after)):  # cropping adds nothing
        return [Spatial(ctx.label(node), x, node.outputs[0], axes=padded)]
    if float(np.asarray(fill).reshape(-1)[0]) != 0.0:
        return ctx.rigid(node, Reason.NONLINEAR)
    return [ZeroPad(ctx.label(node), x, node.outputs[0], tuple(before), tuple(after))]


def read_tile(node: ir.Node, ctx: Context) -> list[Op]:
    """Tile along positions; along channels, every copy must be alike."""
    before, after = ctx.shape(_x(node)), ctx.shape(node.outputs[0])
    assert before is not None
    assert after is not None
    repeats = ctx.const(node.inputs[1])
    axes = tuple(
        i
        for i, (a, b) in enumerate(zip(before, after, strict=True))
        if (a != b if repeats is None else repeats[i] != 1)
    )
    return [Spatial(ctx.label(node), _x(node), node.outputs[0], axes=axes)]


def read_depth_to_space(node: ir.Node, ctx: Context) -> list[Op]:
    """DepthToSpace: the channels that become neighbours in space have one unit."""
    shape = ctx.shape(_x(node))
    assert shape is not None
    n, c, h, w = shape
    if not isinstance(c, int):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    b = int(attr(node, "blocksize", 1))
    columns_first = attr(node, "mode", "DCR") == "DCR"
    inner = c // (b * b)
    split = ctx.extra(node, "split", (n, b, b, inner, h, w) if columns_first else (n, inner, b, b, h, w))
    order = (0, 3, 4, 1, 5, 2) if columns_first else (0, 1, 4, 2, 5, 3)
    mixed = ctx.extra(node, "mixed", (n, inner, h, b, w, b))
    alike = ctx.extra(node, "alike", (n, inner, h, b, w, b))
    label = ctx.label(node)
    return [
        Reshape(f"{label}#split", _x(node), split),
        Transpose(f"{label}#mix", split, mixed, order),
        Spatial(f"{label}#alike", mixed, alike, axes=(3, 5)),
        Reshape(label, alike, node.outputs[0]),
    ]


def read_space_to_depth(node: ir.Node, ctx: Context) -> list[Op]:
    """SpaceToDepth: neighbours in space become channels with the unit they had."""
    shape = ctx.shape(_x(node))
    assert shape is not None
    n, c, h, w = shape
    b = int(attr(node, "blocksize", 1))
    rows = h // b if isinstance(h, int) else f"{h}/{b}"
    columns = w // b if isinstance(w, int) else f"{w}/{b}"
    split = ctx.extra(node, "split", (n, c, rows, b, columns, b))
    mixed = ctx.extra(node, "mixed", (n, b, b, c, rows, columns))
    label = ctx.label(node)
    return [
        Reshape(f"{label}#split", _x(node), split),
        Transpose(f"{label}#mix", split, mixed, (0, 3, 5, 1, 2, 4)),
        Reshape(label, mixed, node.outputs[0]),
    ]


def _x(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
