"""Operators that move elements, applied to units: arrays that have size 1 along axes where they do not vary.

If `y = f(x)` only moves elements, then `x = S ⊙ v + T` gives `f(x) = f(S) ⊙ f(v) + f(T)`. Each function here returns
that `f` for arrays that need not be written out along such axes, whose sizes may not even be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.certificate.bounds import Bound
from bnfold.certificate.forms import Mismatch
from bnfold.certificate.sides import Side, Size, rank_of, sizes_of
from bnfold.frontends.context import attr, ints

Move = Callable[[Bound], Bound]


def even(bound: Bound, axes: Iterable[int]) -> Bound:
    """The bound with size 1 along axes where it must not vary.

    Raises:
        Mismatch: It does.
    """
    axes = tuple(axes)
    found = bound.even(axes)
    if found is None:
        raise Mismatch(f"a unit varies along axis {axes[0] if len(axes) == 1 else axes}, which the operator mixes")
    return found


def reshape(before: Sequence[Size], after: Sequence[Size]) -> Move:
    """Same elements in the same order: groups of axes whose sizes multiply to the same become each other."""

    def move(bound: Bound) -> Bound:
        if bound.mid.size == 1:
            return bound.moved(lambda array: array.reshape((1,) * len(after)))
        left = 0
        while left < min(len(before), len(after)) and before[left] == after[left] and before[left] is not None:
            left += 1
        shape: list[int] = []
        i, j = len(before), len(after)
        parts: list[tuple[range, range]] = []
        while i > left and j > left:
            i, j = i - 1, j - 1
            end_i, end_j = i + 1, j + 1
            one, two = before[i], after[j]
            while isinstance(one, int) and isinstance(two, int) and one != two:
                if one < two and i > left and isinstance(before[i - 1], int):
                    i -= 1
                    one *= before[i]  # type: ignore[operator]
                elif two < one and j > left and isinstance(after[j - 1], int):
                    j -= 1
                    two *= after[j]  # type: ignore[operator]
                else:
                    break
            if one != two or one is None:
                i, j = end_i, end_j
                break
            parts.append((range(i, end_i), range(j, end_j)))
        flat = even(bound, range(left, i))
        wide = list(flat.mid.shape[:left])
        shape = wide + [1] * (j - left)
        wide += [1] * (i - left)
        for sources, targets in reversed(parts):
            if all(flat.mid.shape[k] == 1 for k in sources):
                wide += [1] * len(sources)
                shape += [1] * len(targets)
                continue
            sizes = [before[k] for k in sources]
            if not all(isinstance(size, int) for size in (*sizes, *(after[k] for k in targets))):
                raise Mismatch("a unit varies along an axis of unknown size")
            wide += [int(size) for size in sizes]  # type: ignore[arg-type]
            shape += [int(after[k]) for k in targets]  # type: ignore[arg-type]
        return flat.moved(lambda array: np.broadcast_to(array, wide).reshape(shape))

    return move


def broadcast(rank: int, axes: Sequence[int]) -> Move:
    """To a larger rank, and along axes where it must not vary."""

    def move(bound: Bound) -> Bound:
        return even(bound.moved(lambda array: array.reshape((1,) * (rank - array.ndim) + array.shape)), axes)

    return move


def take(axis: int, index: NDArray[np.int64] | None, shape: tuple[int, ...] | None = None) -> Move:
    """Some elements along an axis; `shape` is what stands in the axis's place, None for one axis."""
    around = (1,) if shape is None else (1,) * len(shape)

    def move(bound: Bound) -> Bound:
        if index is None:
            bound = even(bound, [axis])
        if bound.mid.shape[axis] == 1:
            return bound.moved(lambda a: a.reshape(*a.shape[:axis], *around, *a.shape[axis + 1 :]))
        assert index is not None
        taken = bound.moved(lambda a: a.take(index.reshape(-1), axis=axis))
        if shape is None:
            return taken
        return taken.moved(lambda a: a.reshape(*a.shape[:axis], *shape, *a.shape[axis + 1 :]))

    return move


def transpose(node: ir.Node) -> Move:
    """Transpose."""
    x = node.inputs[0]
    assert x is not None
    perm = ints(node, "perm", tuple(reversed(range(rank_of(x)))))
    return lambda bound: bound.moved(lambda array: array.transpose(perm))


def slices(side: Side, node: ir.Node) -> Move:
    """Slice of every opset."""
    x = node.inputs[0]
    assert x is not None
    sizes, rank = sizes_of(x), rank_of(x)
    optional = [*node.inputs[1:5], *[None] * 4][:4]
    arrays = [side.array(v) for v in optional]
    if len(node.inputs) > 1 and any(v is not None and a is None for v, a in zip(optional, arrays, strict=True)):
        return lambda bound: even(bound, range(rank))
    if len(node.inputs) > 1:
        starts, ends, axes, steps = (None if a is None else [int(i) for i in a.reshape(-1)] for a in arrays)
    else:
        starts, ends = list(ints(node, "starts", ())), list(ints(node, "ends", ()))
        axes, steps = (list(ints(node, "axes", ())) or None), None
    assert starts is not None
    assert ends is not None
    along = range(len(starts)) if axes is None else [axis % rank for axis in axes]
    by = [1] * len(starts) if steps is None else steps

    def move(bound: Bound) -> Bound:
        for axis, start, end, step in zip(along, starts, ends, by, strict=True):
            size = sizes[axis]
            if bound.mid.shape[axis] == 1 or not isinstance(size, int):
                bound = even(bound, [axis])
                continue
            index = _indices(start, end, step, size)
            bound = bound.moved(lambda array, index=index, axis=axis: array.take(index, axis=axis))  # type: ignore[misc]
        return bound

    return move


def _indices(start: int, end: int, step: int, size: int) -> NDArray[np.int64]:
    """The elements that a Slice takes, by the rules of the ONNX specification."""
    lowest, highest = (-1, size - 1) if step < 0 else (0, size)
    bounds = [min(max(b + size if b < 0 else b, lowest), highest) for b in (start, end)]
    return np.arange(bounds[0], bounds[1], step, dtype=np.int64)


def pixels(node: ir.Node) -> Move:
    """DepthToSpace and SpaceToDepth, of units that vary along channels only."""
    x = node.inputs[0]
    assert x is not None
    channels, b = sizes_of(x)[1], int(attr(node, "blocksize", 1))
    assert isinstance(channels, int)

    def per_channel(bound: Bound) -> Bound:
        return even(bound, (0, 2, 3)).moved(lambda array: np.broadcast_to(array, (1, channels, 1, 1)).reshape(-1))

    def to_depth(bound: Bound) -> Bound:
        return per_channel(bound).moved(lambda array: np.tile(array, b * b).reshape(1, -1, 1, 1))

    def to_space(bound: Bound) -> Bound:
        columns_first = attr(node, "mode", "DCR") == "DCR"
        parts = per_channel(bound).moved(
            lambda array: array.reshape(b * b, -1) if columns_first else array.reshape(-1, b * b).T
        )
        return even(parts, [0]).moved(lambda array: array.reshape(1, -1, 1, 1))

    return to_space if node.op_type == "DepthToSpace" else to_depth
