"""Layouts against NumPy: a tensor is an array of its elements' cells, and every operation must agree on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meaning import dense
from numpy.typing import NDArray

from bnfold.units.layout import (
    Cells,
    Factor,
    Tensor,
    along,
    channels_on,
    collapse,
    common_axes,
    full_axis,
    product,
    reshape,
    size_of,
    spread,
    tidy,
    transpose,
    uniform,
)

Ints = NDArray[np.int64]


def make(*axes: Sequence[tuple[int | str | None, bool]], start: int = 100) -> Tensor:
    """A tensor with these factors and cells of its own."""
    factors = [tuple(Factor(size, channel) for size, channel in axis) for axis in axes]
    sizes = [int(f.size) for axis in factors for f in axis if f.channel and isinstance(f.size, int)]
    cells = np.arange(start, start + math.prod(sizes), dtype=np.int64).reshape(sizes)
    cells.setflags(write=False)
    return tidy(cells, factors)


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    sizes = [size_of(axis) for axis in tensor.axes]
    assert all(isinstance(size, int) for size in sizes)
    return tuple(int(size) for size in sizes if isinstance(size, int))


@st.composite
def tensors(draw: st.DrawFn, max_rank: int = 4) -> Tensor:
    factors = st.lists(st.tuples(st.sampled_from([1, 2, 2, 3, 4]), st.booleans()), min_size=1, max_size=2)
    return make(*draw(st.lists(factors, min_size=1, max_size=max_rank)))


@st.composite
def shapes_like(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Shapes with a number of elements."""
    shape: list[int] = []
    while size > 1:
        divisor = draw(st.sampled_from([d for d in range(2, size + 1) if size % d == 0]))
        shape.append(divisor)
        size //= divisor
    for _ in range(draw(st.integers(0, 2))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return tuple(shape)


def is_tidy(tensor: Tensor) -> bool:
    """No channel factor of size 1, neighbours of one axis differ in kind, cells have their factors' sizes."""
    channels = [f.size for axis in tensor.axes for f in axis if f.channel]
    return (
        1 not in channels
        and list(tensor.cells.shape) == channels
        and all(a.channel != b.channel for axis in tensor.axes for a, b in itertools.pairwise(axis))
    )


def chain(sizes: Sequence[Sequence[int]]) -> bool:
    """Whether factorisations of one number have a common refinement: their partial products divide one another."""
    ends = sorted({math.prod(s[i:]) for s in sizes for i in range(len(s) + 1)})
    return all(b % a == 0 for a, b in itertools.pairwise(ends))


def classes(pairs: Sequence[tuple[Cells, Cells]], array: Ints) -> Ints:
    """Every cell of an array replaced by the smallest it is tied to."""
    names = {int(c): int(c) for c in np.unique(np.concatenate([array.reshape(-1), *(q.reshape(-1) for _, q in pairs)]))}
    links = [(int(p), int(q)) for a, b in pairs for p, q in zip(a.reshape(-1), b.reshape(-1), strict=True)]
    for _ in names:
        for p, q in links:
            names[p] = names[q] = min(names[p], names[q])
    return np.vectorize(lambda c: names[int(c)], otypes=[np.int64])(array)


# What must not change


@given(tensors())
@settings(max_examples=60, deadline=None)
def test_reshape_to_the_same_shape_is_nothing(tensor: Tensor) -> None:
    same = reshape(tensor, shape_of(tensor))
    assert same is not None
    np.testing.assert_array_equal(dense(same, shape_of(tensor)), dense(tensor, shape_of(tensor)))
    assert same.axes == tensor.axes


@given(tensors())
@settings(max_examples=60, deadline=None)
def test_tidy_is_the_same_tensor_and_idempotent(tensor: Tensor) -> None:
    assert is_tidy(tensor)
    again = tidy(tensor.cells, tensor.axes)
    assert again.axes == tensor.axes
    np.testing.assert_array_equal(again.cells, tensor.cells)


def test_collapsing_axes_without_channels_ties_nothing() -> None:
    tensor = make([(2, False)], [(3, True)])
    same, pairs = collapse(tensor, {0})
    assert same is tensor
    assert pairs == []


# Every operation agrees with NumPy's


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_reshape_is_numpys(data: st.DataObject) -> None:
    tensor = data.draw(tensors())
    old = shape_of(tensor)
    new = data.draw(shapes_like(math.prod(old)))
    result = reshape(tensor, new)
    if result is None:
        factors = [f.size for axis in tensor.axes for f in axis if isinstance(f.size, int)]
        assert not chain([factors, new]), "it could have been followed"
        return
    assert is_tidy(result)
    np.testing.assert_array_equal(dense(result, new), dense(tensor, old).reshape(new))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_transpose_is_numpys(data: st.DataObject) -> None:
    tensor = data.draw(tensors())
    perm = data.draw(st.permutations(range(tensor.rank)))
    result = transpose(tensor, perm)
    want = dense(tensor, shape_of(tensor)).transpose(perm)
    np.testing.assert_array_equal(dense(result, want.shape), want)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_spread_over_common_axes_is_numpys_broadcast(data: st.DataObject) -> None:
    whole = data.draw(tensors())
    shape = shape_of(whole)
    others = []
    for i in range(data.draw(st.integers(0, 2))):
        own = [1 if data.draw(st.booleans()) else size for size in shape[data.draw(st.integers(0, len(shape) - 1)) :]]
        axes: list[list[tuple[int | str | None, bool]]] = []
        for size in own:
            divisor = data.draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
            axes.append([(divisor, data.draw(st.booleans())), (size // divisor, data.draw(st.booleans()))])
        others.append(make(*axes, start=1000 * (i + 1)))
    group = [whole, *others]
    axes_of = common_axes(group, shape)
    if axes_of is None:
        lists = [
            [[f.size for f in t.axes[i] if isinstance(f.size, int)] for t in group if t.rank >= -i]
            for i in range(-len(shape), 0)
        ]
        split = [[s for s in axis if math.prod(s) == size] for axis, size in zip(lists, shape, strict=True)]
        assert not all(chain(axis) for axis in split), "the factors match"
        return
    want = np.broadcast_arrays(*(dense(t, shape_of(t)) for t in group), np.zeros(shape, dtype=np.int64))
    for tensor, array in zip(group, want, strict=False):
        result = Tensor(spread(tensor, axes_of), axes_of)
        np.testing.assert_array_equal(dense(result, shape), array)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_collapse_makes_axes_uniform_and_ties_what_it_must(data: st.DataObject) -> None:
    tensor = data.draw(tensors())
    shape = shape_of(tensor)
    axes = data.draw(st.sets(st.integers(0, tensor.rank - 1)))
    result, pairs = collapse(tensor, axes)
    before, after = dense(tensor, shape), dense(result, shape)
    assert not result.channel_axes & axes
    assert is_tidy(result)
    first = before[tuple(slice(0, 1) if i in axes else slice(None) for i in range(len(shape)))]
    np.testing.assert_array_equal(after, np.broadcast_to(first, shape))
    np.testing.assert_array_equal(classes(pairs, before), classes(pairs, after))
    minimal = [(np.broadcast_to(first, shape), before)]
    np.testing.assert_array_equal(classes(pairs, before), classes(minimal, before))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_along_reads_one_axis_and_makes_the_others_uniform(data: st.DataObject) -> None:
    tensor = data.draw(tensors())
    shape = shape_of(tensor)
    axis = data.draw(st.integers(0, tensor.rank - 1))
    cells, pairs = along(tensor, axis, shape[axis])
    before = dense(tensor, shape)
    line = before[tuple(slice(None) if i == axis else 0 for i in range(len(shape)))]
    np.testing.assert_array_equal(cells, line)
    column = cells.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    np.testing.assert_array_equal(classes(pairs, before), classes(pairs, np.broadcast_to(column, shape)))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_full_axis_is_the_same_tensor_with_one_factor_on_that_axis(data: st.DataObject) -> None:
    tensor = data.draw(tensors())
    shape = shape_of(tensor)
    axis = data.draw(st.integers(0, tensor.rank - 1))
    result = full_axis(tensor, axis, shape[axis])
    assert result.axes[axis] == (Factor(shape[axis], True),)
    np.testing.assert_array_equal(dense(result, shape), dense(tensor, shape))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_batch_of_unknown_size_is_followed_as_a_known_one_is(data: st.DataObject) -> None:
    """Reshape with `N` in front: never wrong, and found whenever channels stay behind it."""
    tensor = data.draw(tensors(3))
    rest = shape_of(tensor)
    named = Tensor(tensor.cells, ((Factor("N"),), *tensor.axes))
    new = data.draw(shapes_like(math.prod(rest)))
    known, result = reshape(tensor, new), reshape(named, ("N", *new))
    assert (known is None) == (result is None)
    if result is not None:
        want = np.broadcast_to(dense(tensor, rest), (5, *rest)).reshape((5, *new))
        np.testing.assert_array_equal(dense(result, (5, *new)), want)


# Named arrangements that networks use


def test_flatten_repeats_every_channel_for_its_positions() -> None:
    image = make([("N", False)], [(2, True)], [(3, False)], [(3, False)])
    flat = reshape(image, ("N", 18))
    assert flat is not None
    np.testing.assert_array_equal(dense(flat, (4, 18)), np.tile(np.repeat([100, 101], 9), (4, 1)))


def test_flatten_with_a_batch_that_only_the_result_leaves_unnamed() -> None:
    """Exporters write the batch as another name, or none at all, behind a Reshape."""
    image = make([("N", False)], [(2, True)], [(3, False)])
    flat = reshape(image, (None, 6))
    assert flat is not None
    np.testing.assert_array_equal(dense(flat, (4, 6)), np.tile(np.repeat([100, 101], 3), (4, 1)))


def test_a_channel_shuffle_is_a_permutation() -> None:
    image = make([("N", False)], [(6, True)], [(2, False)], [(2, False)])
    groups = reshape(image, ("N", 2, 3, 2, 2))
    assert groups is not None
    shuffled = reshape(transpose(groups, (0, 2, 1, 3, 4)), ("N", 6, 2, 2))
    assert shuffled is not None
    [line] = dense(shuffled, (1, 6, 2, 2))[:, :, 0, 0]
    np.testing.assert_array_equal(line, [100, 103, 101, 104, 102, 105])


def test_attention_heads_come_together_again() -> None:
    tokens = make([("N", False)], [(5, False)], [(6, True)])
    heads = reshape(tokens, ("N", 5, 2, 3))
    assert heads is not None
    swapped = transpose(heads, (0, 2, 1, 3))
    assert swapped.cells.shape == (2, 3)
    back = reshape(transpose(swapped, (0, 2, 1, 3)), ("N", 5, 6))
    assert back is not None
    assert back.axes == tokens.axes
    np.testing.assert_array_equal(back.cells, tokens.cells)


def test_depth_to_space_spreads_channels_over_positions() -> None:
    image = make([(1, False)], [(8, True)], [(3, False)], [(3, False)])
    blocks = reshape(image, (1, 2, 2, 2, 3, 3))
    assert blocks is not None
    result = reshape(transpose(blocks, (0, 3, 4, 1, 5, 2)), (1, 2, 6, 6))
    assert result is not None
    channels = np.arange(100, 108).reshape(1, 2, 2, 2, 1, 1)
    want = np.broadcast_to(channels, (1, 2, 2, 2, 3, 3)).transpose(0, 3, 4, 1, 5, 2).reshape(1, 2, 6, 6)
    np.testing.assert_array_equal(dense(result, (1, 2, 6, 6)), want)


def test_channels_that_would_be_torn_apart_are_not_followed() -> None:
    """4 channels of 3 positions in rows of 2: no row of the result belongs to one channel, and no factors say so."""
    assert reshape(make([("N", False)], [(4, True)], [(3, False)]), ("N", 6, 2)) is None


def test_positions_may_be_rearranged_freely_beside_a_channel() -> None:
    image = make([(2, False)], [(3, True)], [(4, False)], [(3, False)])
    result = reshape(image, (2, 3, 6, 2))
    assert result is not None
    np.testing.assert_array_equal(dense(result, (2, 3, 6, 2)), dense(image, (2, 3, 4, 3)).reshape(2, 3, 6, 2))


def test_unknown_height_and_width_become_one_axis_of_positions() -> None:
    image = make([("N", False)], [(3, True)], [("H", False)], [("W", False)])
    tokens = reshape(image, ("N", 3, None))
    assert tokens is not None
    np.testing.assert_array_equal(dense(tokens, (2, 3, 20)), np.tile(np.arange(100, 103)[:, None], (2, 1, 20)))


def test_a_channel_of_size_one_is_no_channel() -> None:
    tensor = channels_on(np.array([7]), (2, 1, 3), 1)
    assert not tensor.has_channels
    np.testing.assert_array_equal(dense(tensor, (2, 1, 3)), np.full((2, 1, 3), 7))
    cells, pairs = along(tensor, 1, 1)
    np.testing.assert_array_equal(cells, [7])
    assert pairs == []


def test_a_uniform_tensor_has_one_cell_everywhere() -> None:
    tensor = uniform(5, ("N", 3))
    assert tensor.channel_axes == frozenset()
    np.testing.assert_array_equal(along(tensor, 1, 3)[0], [5, 5, 5])


def test_operands_of_different_factors_do_not_match() -> None:
    a, b = make([(2, True), (3, False)]), make([(3, True), (2, False)])
    assert common_axes([a, b], (6,)) is None


def test_a_coarse_and_a_fine_operand_meet_in_the_fine_one() -> None:
    a, b = make([(6, True)]), make([(2, True), (3, False)], start=200)
    axes = common_axes([a, b], (6,))
    assert axes == ((Factor(2, True), Factor(3, True)),)
    np.testing.assert_array_equal(spread(a, axes).reshape(-1), np.arange(100, 106))
    np.testing.assert_array_equal(spread(b, axes).reshape(-1), np.repeat([200, 201], 3))


def test_a_single_operand_takes_the_sizes_of_the_result() -> None:
    """Expand: the axes that are copied have the result's size, not the operand's 1."""
    tensor = make([("N", False)], [(3, True)], [(1, False)])
    axes = common_axes([tensor], ("N", 3, 5))
    assert axes == ((Factor("N"),), (Factor(3, True),), (Factor(5),))


@pytest.mark.parametrize(("sizes", "expected"), [([2, 3], 6), ([], 1), ([2, "N"], None), ([None], None), ([0, 4], 0)])
def test_a_product_is_known_where_all_sizes_are(sizes: list[int | str | None], expected: int | None) -> None:
    assert product(sizes) == expected
