"""The equations as they are collected: cells, runs, and what `same` and `hold` write down."""

from __future__ import annotations

import numpy as np

from bnfold.reasons import Reason
from bnfold.units.system import GROUND, REASONS, System, ground


def test_the_ground_has_a_cell_for_every_reason() -> None:
    assert [REASONS[ground(reason)] for reason in Reason] == list(Reason)
    assert max(ground(reason) for reason in Reason) == GROUND - 1


def test_what_is_the_same_already_says_nothing() -> None:
    system = System()
    cells = system.new((3,))
    system.same(cells, cells.copy())
    assert (system.ties, system.rows) == ([], [])


def test_only_what_differs_is_tied_and_shifts_follow() -> None:
    system = System()
    a, b = system.new((3,)), system.new((3,))
    b[1] = a[1]
    system.same(a, b)
    [tie], [row] = system.ties, system.rows
    np.testing.assert_array_equal(np.stack([tie.a, tie.b]), [a[[0, 2]], b[[0, 2]]])
    assert [coefficient for coefficient, _ in row.terms] == [1.0, -1.0]


def test_new_cells_are_numbered_on_and_shaped() -> None:
    system = System()
    first, second, single = system.new((2,)), system.new((2, 3)), system.new(())
    np.testing.assert_array_equal(first, [GROUND, GROUND + 1])
    np.testing.assert_array_equal(second.reshape(-1), np.arange(GROUND + 2, GROUND + 8))
    assert single.shape == ()
    assert system.size == GROUND + 9


def test_runs_are_cells_made_together_and_the_ground_is_none() -> None:
    system = System()
    first, second = system.new((2,)), system.new((3,))
    assert system.runs(np.zeros(0, dtype=np.int64)) == []
    assert system.runs(np.full(2, ground(Reason.IO))) == []
    [one], [two] = system.runs(first), system.runs(second[1:])
    assert one != two
    assert system.runs(np.concatenate([second, first, [ground(Reason.IO)]])) == sorted([one, two])
    third = system.new((1,))
    assert system.runs(third) not in ([one], [two], [])


def test_holding_fixes_scale_and_shift_and_counts_as_a_reader() -> None:
    system = System()
    cells = system.new((2, 2))
    system.hold(cells, Reason.HOOK)
    [(rigid, first)], [(pinned, second)], [read] = system.rigid, system.pinned, system.read
    for flat in (rigid, pinned, read):
        np.testing.assert_array_equal(flat, cells.reshape(-1))
    assert (first, second) == (Reason.HOOK, Reason.HOOK)
