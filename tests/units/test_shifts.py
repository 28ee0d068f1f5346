"""Shift equations against exact linear algebra: what is accepted, what contradicts it, and that the solution solves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from handmade import frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnfold.units.affine import Array
from bnfold.units.blocks import Lanes
from bnfold.units.shifts import Shifts

BLOCKS, LANES = 5, 3
ONES, RIGHT = frozen([1, 1, 1]), frozen([1, 2, 3])
Equation = tuple[list[tuple[int, Array]], Array]


def solvable(equations: Sequence[Equation]) -> bool:
    """Whether the equations have a common solution, lane by lane, in exact arithmetic."""
    return all(_solvable([_row(equation, lane) for equation in equations]) for lane in range(LANES))


def plain(values: Array) -> Lanes:
    """The same as one number, where all lanes have it."""
    return float(values[0]) if (values == values[0]).all() else values


def all_shifts(shifts: Shifts, blocks: int = BLOCKS, lanes: int = LANES) -> list[Array]:
    """The shift of every block, lane by lane."""
    decided = shifts.solve()
    return [np.broadcast_to(decided.get(block, 0.0), lanes) for block in range(blocks)]


def _row(equation: Equation, lane: int) -> list[Fraction]:
    terms, rhs = equation
    row = [Fraction(0)] * BLOCKS
    for block, coefficient in terms:
        row[block] += Fraction(float(coefficient[lane]))
    return [*row, Fraction(float(rhs[lane]))]


def _solvable(rows: list[list[Fraction]]) -> bool:
    for column in range(BLOCKS):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is None:
            continue
        rows = [
            [v - row[column] / pivot[column] * p for v, p in zip(row, pivot, strict=True)]
            for row in rows
            if row is not pivot
        ]
    return not any(row[-1] for row in rows)


lanes = st.lists(st.sampled_from([0.0, 1.0, 1.0, -1.0, 2.0, -0.5, 3.0]), min_size=LANES, max_size=LANES).map(frozen)
terms = st.lists(st.tuples(st.integers(0, BLOCKS - 1), lanes), min_size=1, max_size=4)
equations = st.tuples(terms, st.one_of(st.just(frozen(np.zeros(LANES))), lanes))


def run(shifts: Shifts, given_equations: Sequence[Equation]) -> tuple[list[Equation], list[frozenset[object]]]:
    """Add equations one by one, as the solver does; the accepted ones, and the labels of every contradiction."""
    accepted, clashes = [], []
    for number, (left, right) in enumerate(given_equations):
        mark = shifts.mark()
        clash = shifts.add([(b, c.copy()) for b, c in left], right.copy(), frozenset({number}))
        if clash is None:
            accepted.append(given_equations[number])
        else:
            clashes.append(clash)
            shifts.rollback(mark)
    return accepted, clashes


@given(st.lists(equations, max_size=9))
@settings(max_examples=300, deadline=None)
@example([([(1, frozen([1, 1, 0])), (0, ONES)], RIGHT), ([(0, ONES)], RIGHT)])
def test_an_equation_is_accepted_if_and_only_if_the_system_stays_solvable(given_equations: list[Equation]) -> None:
    shifts, short = Shifts(), Shifts()
    accepted: list[Equation] = []
    for number, (left, right) in enumerate(given_equations):
        mark = shifts.mark()
        clash = shifts.add([(b, c.copy()) for b, c in left], right.copy(), frozenset({number}))
        assert (clash is None) == solvable([*accepted, (left, right)])
        assert short.add([(b, plain(c)) for b, c in left], plain(right), frozenset({number})) == clash
        if clash is None:
            accepted.append((left, right))
        else:
            shifts.rollback(mark)
            short.rollback(mark)
    solution = all_shifts(shifts)
    np.testing.assert_array_equal(solution, all_shifts(short), err_msg="a number for all lanes means the same")
    for left, right in accepted:
        np.testing.assert_allclose(sum(c * solution[b] for b, c in left), right, rtol=1e-9, atol=1e-9)


@given(st.lists(equations, max_size=9))
@settings(max_examples=200, deadline=None)
def test_a_contradiction_names_equations_that_contradict_each_other(given_equations: list[Equation]) -> None:
    """The user is told the laws among them, so they must be a contradiction by themselves."""
    _, clashes = run(Shifts(), given_equations)
    for clash in clashes:
        assert not solvable([given_equations[n] for n in clash if isinstance(n, int)])


@given(st.lists(equations, max_size=5), st.lists(equations, max_size=5), st.lists(equations, max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_rollback_restores_everything(first: list[Equation], second: list[Equation], third: list[Equation]) -> None:
    shifts, untouched = Shifts(), Shifts()
    run(shifts, first)
    run(untouched, first)
    mark = shifts.mark()
    for left, right in second:
        shifts.add([(b, c.copy()) for b, c in left], right.copy(), frozenset())
    shifts.rollback(mark)
    assert shifts.mark() == mark
    for a, b in zip(all_shifts(shifts), all_shifts(untouched), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [id(e) for e in run(shifts, third)[0]] == [id(e) for e in run(untouched, third)[0]]


@given(terms, lanes)
@settings(max_examples=50, deadline=None)
def test_arguments_are_not_written_to(left: list[tuple[int, Array]], right: Array) -> None:
    """The coefficients of a law are shared by all its equations; here they are read-only."""
    shifts = Shifts()
    for _ in range(3):
        shifts.add(left, right, frozenset())


# Cases by name

one = frozen(np.ones(1))


def number(value: float) -> Array:
    return frozen([value])


def test_without_equations_every_shift_is_zero() -> None:
    """What nothing decides stays as it was."""
    assert Shifts().solve() == {}


def test_a_free_shift_beside_a_decided_one_stays_zero() -> None:
    shifts = Shifts()
    assert shifts.add([(1, one), (0, -one)], number(5.0), frozenset()) is None
    assert [float(v[0]) for v in all_shifts(shifts, 3, 1)] == [0.0, 5.0, 0.0]


def test_an_equation_twice_is_one() -> None:
    shifts = Shifts()
    for _ in range(2):
        assert shifts.add([(0, one), (1, number(0.1))], number(0.3), frozenset()) is None
    assert shifts.mark() == 1


def test_rounding_is_no_contradiction() -> None:
    """0.1 + 0.2 ≠ 0.3 in binary."""
    shifts = Shifts()
    assert shifts.add([(0, one)], number(0.1), frozenset()) is None
    assert shifts.add([(1, one), (0, -one)], number(0.2), frozenset()) is None
    assert shifts.add([(1, one)], number(0.3), frozenset()) is None


def test_rounding_of_coefficients_is_no_pivot() -> None:
    """Three times a third cancels one: what is left of it must not decide a shift."""
    shifts = Shifts()
    assert shifts.add([(1, number(0.1)), (0, number(0.3))], number(0.0), frozenset({"a"})) is None
    assert shifts.add([(1, number(0.3)), (0, number(0.1 + 0.2 + 0.6))], number(0.0), frozenset({"b"})) is None
    assert shifts.add([(0, one)], number(7.0), frozenset({"c"})) is None


def test_a_small_difference_is_a_contradiction() -> None:
    shifts = Shifts()
    assert shifts.add([(0, one)], number(1.0), frozenset({"a"})) is None
    assert shifts.add([(0, one)], number(1.0 + 1e-9), frozenset({"b"})) == {"a", "b"}


def test_a_residual_stream_keeps_rows_short() -> None:
    """t(l+1) = t(l) + bias(l): the pivot is the latest bias, so no row grows with depth."""
    depth = 200
    shifts = Shifts()
    for layer in range(depth):
        stream, bias, after = 2 * layer, 2 * layer + 1, 2 * layer + 2
        assert shifts.add([(after, one), (stream, -one), (bias, -one)], number(0.0), frozenset()) is None
    for layer in range(1, depth + 1):
        assert shifts.add([(2 * layer, one)], number(float(layer % 7)), frozenset()) is None
    longest = max(len(pivot.terms) for pivots in shifts._pivots.values() for pivot in pivots)
    assert longest <= 2
    solution = all_shifts(shifts, 2 * depth + 1, 1)
    layers = range(1, depth + 1)
    assert [float(solution[2 * layer][0]) for layer in layers] == [float(layer % 7) for layer in layers]


def test_lanes_find_their_pivots_at_different_blocks() -> None:
    """The coefficient of the later block cancels in one channel only."""
    shifts = Shifts()
    ones = frozen([1.0, 1.0])
    assert shifts.add([(1, frozen([0.0, 1.0])), (0, ones)], frozen([3.0, 5.0]), frozenset({"a"})) is None
    assert shifts.add([(0, frozen([1.0, 0.0]))], frozen([4.0, 0.0]), frozenset({"b"})) == {"a", "b"}
    first, second = all_shifts(shifts, 2, 2)
    np.testing.assert_array_equal(first, [3.0, 0.0])
    np.testing.assert_array_equal(second, [0.0, 5.0])


def test_an_equation_without_unknowns_holds_only_for_zero() -> None:
    shifts = Shifts()
    assert shifts.add([], number(0.0), frozenset({"a"})) is None
    assert shifts.add([(0, one), (0, -one)], number(0.0), frozenset({"a"})) is None
    assert shifts.add([(0, one), (0, -one)], number(1.0), frozenset({"b"})) == {"b"}
