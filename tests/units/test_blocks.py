"""Blocks are a partition, and every equation maps whole blocks onto whole blocks, lane by lane."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from handmade import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.reasons import Reason
from bnfold.units.blocks import Blocks, equations
from bnfold.units.graph import Affine
from bnfold.units.layout import Cells
from bnfold.units.system import GROUND, Candidate, Row, System, Tie, ground


def tie(system: System, a: Cells, b: Cells) -> None:
    system.ties.append(Tie(a, b))


def candidate(system: System, x: Cells, y: Cells, scale: object = 2.0) -> None:
    s = frozen(np.broadcast_to(np.asarray(scale, dtype=np.float64), x.shape))
    name = f"affine{len(system.candidates)}"
    op = Affine(name, "x", "y", s, frozen(np.zeros(x.shape)), batch_norm=True)
    system.candidates.append(Candidate(op, x, y, s, frozen(np.zeros(x.shape)), 1.0))


def check(system: System) -> Blocks:
    """What the solver relies on."""
    blocks = Blocks(system)
    everything = np.concatenate([*blocks.cells, np.zeros(0, dtype=np.int64)])
    np.testing.assert_array_equal(np.sort(everything), np.arange(GROUND, system.size), "not a partition")
    assert (blocks.block[:GROUND] == -1).all()
    for number, cells in enumerate(blocks.cells):
        assert (blocks.block[cells] == number).all()
        np.testing.assert_array_equal(blocks.lane[cells], np.arange(len(cells)))
    firsts = [int(cells[0]) for cells in blocks.cells]
    assert firsts == sorted(firsts), "blocks are numbered by age"
    for arrays, mark in equations(system):
        check_equation(blocks, arrays, mark)
    return blocks


def check_equation(blocks: Blocks, arrays: tuple[Cells, ...], mark: np.ndarray | None) -> None:
    covered = np.zeros(len(arrays[0]), dtype=np.int64)
    for piece in blocks.pieces(arrays):
        index = np.arange(len(arrays[0])) if piece.index is None else piece.index
        covered[index] += 1
        for number, array in zip(piece.blocks, arrays, strict=True):
            if number < 0:
                assert (array[index] < GROUND).all()
            else:
                np.testing.assert_array_equal(array[index], blocks.cells[number], "lanes differ")
        if mark is not None:
            assert len(set(mark[index].tolist())) == 1, "lanes of two kinds in one block"
    outside = np.all([array < GROUND for array in arrays], axis=0)
    np.testing.assert_array_equal(covered[~outside], 1, "an equation is lost or doubled")


# What must stay whole: each block is a vector operation of the solver


def test_without_equations_every_run_is_a_block() -> None:
    system = System()
    system.new((3,)), system.new((2, 2))
    assert [len(c) for c in check(system).cells] == [3, 4]


def test_an_empty_system_has_no_blocks() -> None:
    assert check(System()).cells == []


def test_whole_runs_stay_whole() -> None:
    """A residual stream: hundreds of operators, one block each."""
    system = System()
    stream = [system.new((64,)) for _ in range(50)]
    for a, b in itertools.pairwise(stream):
        tie(system, a, b)
        system.rows.append(Row(((1.0, b), (-1.0, a))))
        candidate(system, a, b)
    system.hold(stream[-1], Reason.IO)
    assert len(check(system).cells) == 50


def test_what_is_tied_to_the_ground_stays_whole() -> None:
    system = System()
    cells = system.new((5,))
    tie(system, np.full(5, ground(Reason.IO)), cells)
    assert len(check(system).cells) == 1


def test_a_permutation_of_channels_is_an_alignment() -> None:
    """A channel shuffle of a thousand channels: two blocks, in matching order."""
    system = System()
    a, b = system.new((1000,)), system.new((1000,))
    order = np.random.default_rng(0).permutation(1000)
    tie(system, a[order], b)
    assert len(check(system).cells) == 2


def test_a_shuffle_between_whole_operators_stays_aligned() -> None:
    system = System()
    a, b, c = (system.new((12,)) for _ in range(3))
    shuffle = np.arange(12).reshape(3, 4).T.reshape(-1)
    candidate(system, a, b)
    candidate(system, b[shuffle], c)
    assert len(check(system).cells) == 3


# What must be cut


def test_a_split_cuts_a_run_into_its_parts() -> None:
    system = System()
    whole, left, right = system.new((6,)), system.new((2,)), system.new((4,))
    candidate(system, whole[:2], left)
    candidate(system, whole[2:], right)
    assert sorted(len(c) for c in check(system).cells) == [2, 2, 4, 4]


def test_equal_halves_with_different_readers_are_different_blocks() -> None:
    system = System()
    whole, left, right = system.new((6,)), system.new((3,)), system.new((3,))
    candidate(system, whole[:3], left)
    candidate(system, whole[3:], right)
    assert sorted(len(c) for c in check(system).cells) == [3, 3, 3, 3]


def test_halves_that_swap_are_one_family() -> None:
    system = System()
    a, b = system.new((6,)), system.new((6,))
    tie(system, np.concatenate([a[3:], a[:3]]), b)
    assert len(check(system).cells) == 2


def test_a_scalar_shared_by_many_channels_is_one_lane() -> None:
    """A uniform value read per channel: all channels hang together, in blocks of one cell each."""
    system = System()
    one, many = system.new((1,)), system.new((4,))
    candidate(system, np.repeat(one, 4), many)
    assert sorted(len(c) for c in check(system).cells) == [1, 1, 1, 1, 1]


def test_repeated_cells_of_a_flatten_keep_their_lanes() -> None:
    """Channel c stands H·W times in the flattened tensor: c is a lane of one and H·W cells."""
    system = System()
    channels, flat = system.new((3,)), system.new((12,))
    candidate(system, np.repeat(channels, 4), flat)
    blocks = check(system)
    assert sorted(len(c) for c in blocks.cells) == [3, 3, 3, 3, 3]


def test_two_weights_on_one_cell_become_two_rounds() -> None:
    """`concat(c, c)` through one operator: the equation holds twice between the same kinds of blocks."""
    system = System()
    c, y = system.new((3,)), system.new((6,))
    tie(system, np.concatenate([c, c]), y)
    check(system)


def test_channels_tangled_with_themselves_end_up_alone() -> None:
    """x + roll(x): every channel is tied to its neighbour, so all of them are one lane."""
    system = System()
    x, y = system.new((5,)), system.new((5,))
    tie(system, x, y)
    tie(system, np.roll(x, 1), y)
    assert sorted(len(c) for c in check(system).cells) == [1] * 10


def test_channels_tangled_in_pairs_are_lanes_of_two() -> None:
    """x + swap(x) of neighbours: 4 pairs with the same equations are one family of 4 lanes."""
    system = System()
    x = system.new((8,))
    y = system.new((8,))
    swap = np.arange(8).reshape(4, 2)[:, ::-1].reshape(-1)
    tie(system, x, y)
    tie(system, x[swap], y)
    assert sorted(len(c) for c in check(system).cells) == [4, 4, 4, 4]


def test_zero_gammas_are_kept_apart_from_the_others() -> None:
    """They take another way through the solver, so a block must hold only one kind."""
    system = System()
    x, y = system.new((5,)), system.new((5,))
    candidate(system, x, y, [0.0, 1.0, 2.0, 0.0, 1.0])
    assert sorted(len(c) for c in check(system).cells) == [2, 2, 3, 3]


def test_equations_that_touch_the_ground_in_some_channels_are_cut_there() -> None:
    system = System()
    part, y = system.new((2,)), system.new((5,))
    candidate(system, np.concatenate([part, np.full(3, ground(Reason.IO))]), y)
    blocks = check(system)
    assert sorted(len(c) for c in blocks.cells) == [2, 2, 3]
    pieces = blocks.pieces((np.concatenate([part, np.full(3, ground(Reason.IO))]), y))
    assert sorted(min(p.blocks) for p in pieces)[0] == -1


def test_lanes_on_different_grounds_stay_together_where_no_equation_tells_them_apart() -> None:
    system = System()
    y = system.new((4,))
    mixed = np.array([ground(Reason.IO)] * 2 + [ground(Reason.NONLINEAR)] * 2)
    tie(system, mixed, y)
    check(system)


def test_an_equation_that_holds_between_grounds_only_is_nothing() -> None:
    """Two concatenations with inputs in the same place: there, no block takes part."""
    system = System()
    a, b = system.new((2,)), system.new((2,))
    left = np.concatenate([a, [ground(Reason.IO)]])
    right = np.concatenate([b, [ground(Reason.NONLINEAR)]])
    tie(system, left, right)
    blocks = check(system)
    assert all(max(piece.blocks) >= 0 for piece in blocks.pieces((left, right)))


@pytest.mark.parametrize("kind", ["rigid", "pinned", "positive", "read", "made"])
def test_a_law_for_some_channels_cuts_them_out(kind: str) -> None:
    system = System()
    cells = system.new((6,))
    some = cells[[1, 4]]
    getattr(system, kind).append((some, Reason.IO) if kind in ("rigid", "pinned") else some)
    assert sorted(len(c) for c in check(system).cells) == [2, 4]


# Anything


@st.composite
def systems(draw: st.DrawFn) -> System:
    system = System()
    runs = [system.new((draw(st.integers(1, 6)),)) for _ in range(draw(st.integers(1, 5)))]

    def array(size: int | None) -> Cells:
        kind = draw(st.sampled_from(["whole", "whole", "permuted", "some", "repeated", "scalar", "concat", "ground"]))
        run = draw(st.sampled_from(runs))
        if kind == "permuted":
            run = np.array(draw(st.permutations(run.tolist())))
        elif kind == "some":
            first = draw(st.integers(0, len(run) - 1))
            run = run[first : draw(st.integers(first + 1, len(run)))]
        elif kind == "repeated":
            run = np.repeat(run, 2)
        elif kind == "scalar":
            run = run[:1]
        elif kind == "concat":
            run = np.concatenate([run, draw(st.sampled_from(runs))])
        elif kind == "ground":
            run = np.full(len(run), ground(draw(st.sampled_from([Reason.IO, Reason.NONLINEAR]))))
        return run if size is None else np.resize(run, size)

    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["tie", "row", "positive", "pinned", "candidate", "candidate"]))
        first = array(None)
        if kind == "tie":
            tie(system, first, array(len(first)))
        elif kind == "row":
            system.rows.append(Row(((1.0, array(len(first))), (-1.0, first), (1.0, array(len(first))))))
        elif kind == "positive":
            system.positive.append(first)
        elif kind == "pinned":
            system.pinned.append((first, Reason.ZERO_PAD))
        else:
            made = system.new((len(first),))
            scale = [draw(st.sampled_from([0.0, 1.0, 2.0])) for _ in first]
            candidate(system, first, made, scale)
            runs.append(made)
    return system


@given(systems())
@settings(max_examples=300, deadline=None)
def test_every_system_falls_into_blocks(system: System) -> None:
    check(system)
