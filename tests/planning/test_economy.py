"""What gains nothing stays untouched, and what stays is as few operators as it was."""

from __future__ import annotations

import numpy as np
from handmade import Net, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from meaning import check_exact

from bnfold.planning.economy import between_units
from bnfold.planning.plan import Folding, make_plan
from bnfold.units.affine import Unit
from bnfold.units.graph import Affine
from bnfold.units.system import Candidate

COLUMN = (3, 1, 1)


def column(*values: float) -> np.ndarray:
    return np.reshape(values, COLUMN)


def planned(net: Net) -> Folding:
    folding = make_plan(net.graph())
    check_exact(net, folding)
    return folding


def gone(folding: Folding) -> set[str]:
    return {s.name for s in (*folding.plan.sites, *folding.plan.affines) if s.status == "folded"}


def operators(folding: Folding) -> int:
    """Multiplications and additions that the affines which stay will take."""
    count = 0
    for candidate in folding.system.candidates:
        if candidate.op.name not in folding.solution.removed and not candidate.op.batch_norm:
            units = [folding.solution.unit(cells) for cells in folding.system.views[candidate.op.name]]
            scale, shift = between_units(candidate, *units)
            count += int((scale != 1).any()) + int((shift != 0).any())
    return count


# What must not change


def test_a_preprocessing_that_only_changes_its_shape_stays_as_it_is() -> None:
    """x·s + t before a padded convolution: the scale could go, the addition would stay, as a multiplication's price."""
    net = Net()
    x = net.affine(net.input(2, 3, 4, 4), column(2, 3, 4), column(1, 2, 3))
    folding = planned(net.output(net.conv(x, 2, 3, 1)))
    assert gone(folding) == set()
    assert operators(folding) <= 2


def test_a_multiplication_between_two_walls_stays_as_it_is() -> None:
    net = Net()
    x = net.affine(net.tanh(net.input(2, 3, 4, 4)), column(2, 3, 4))
    folding = planned(net.output(net.tanh(x)))
    assert gone(folding) == set()
    assert folding.solution.unit(np.arange(len(folding.solution.scale))).is_identity


def test_moving_an_addition_into_a_bias_that_is_not_there_gains_nothing() -> None:
    """MatMul → Add is how a bias is written where MatMul has none: taking one out would put another in."""
    net = Net()
    y = net.affine(net.conv(net.input(2, 3, 4, 4), 3, bias=False, bias_slot=False), 1.0, column(1, 2, 3))
    folding = planned(net.output(net.tanh(y)))
    assert gone(folding) == set()
    assert folding.solution.unit(np.arange(len(folding.solution.scale))).is_identity


# What is worth it


def test_a_multiplication_goes_into_a_padded_convolution() -> None:
    net = Net()
    x = net.affine(net.input(2, 3, 4, 4), column(2, 3, 4), name="mul")
    assert gone(planned(net.output(net.conv(x, 2, 3, 1)))) == {"mul"}


def test_an_addition_goes_into_a_bias_that_is_there() -> None:
    net = Net()
    y = net.affine(net.conv(net.input(2, 3, 4, 4), 3), 1.0, column(1, 2, 3), name="add")
    assert gone(planned(net.output(net.tanh(y)))) == {"add"}


def test_two_additions_become_one_bias() -> None:
    net = Net()
    y = net.affine(net.conv(net.input(2, 3, 4, 4), 3, bias=False, bias_slot=False), 1.0, column(1, 2, 3), name="one")
    y = net.affine(y, 1.0, column(4, 5, 6), name="two")
    folding = planned(net.output(net.tanh(y)))
    assert len(gone(folding)) >= 1


def test_of_a_subtraction_and_a_division_one_is_left_before_a_padding() -> None:
    """(x − mean) / std: the division folds into the weights, the subtraction stays one operator."""
    net = Net()
    x = net.affine(net.input(2, 3, 4, 4), 1.0, column(-1, -2, -3), name="sub", kind="Sub")
    x = net.affine(x, column(0.5, 0.25, 2), name="div", kind="Div")
    folding = planned(net.output(net.conv(x, 2, 3, 1)))
    assert len(gone(folding)) == 1
    assert operators(folding) == 1


def test_both_go_where_nothing_is_padded() -> None:
    net = Net()
    x = net.affine(net.input(2, 3, 4, 4), 1.0, column(-1, -2, -3), name="sub", kind="Sub")
    x = net.affine(x, column(0.5, 0.25, 2), name="div", kind="Div")
    assert gone(planned(net.output(net.conv(x, 2, 3)))) == {"sub", "div"}


def test_a_batch_norm_is_worth_a_multiplication_that_becomes_two_operators() -> None:
    """The BatchNorm goes even if its shift has to stay in the Mul before it."""
    net = Net()
    x = net.affine(net.tanh(net.input(2, 3, 4, 4)), column(2, 3, 4), name="mul")
    folding = planned(net.output(net.tanh(net.bn(x, [1.0, 2.0, 3.0], [1.0, 1.0, 2.0], name="norm"))))
    assert "norm" in gone(folding)


def test_putting_back_loses_no_batch_norm() -> None:
    """A component with both: the affine's removal is a part of the BatchNorm's."""
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3)
    y = net.bn(net.affine(x, column(2, 3, 4), name="mul"), name="norm")
    assert gone(planned(net.output(net.tanh(y)))) == {"mul", "norm"}


# Between units


def candidate(scale: np.ndarray, shift: np.ndarray) -> Candidate:
    op = Affine("a", "x", "y", scale, shift)
    cells = np.arange(len(scale))
    return Candidate(op, cells, cells, scale, shift, 1.0)


numbers = st.floats(-8, 8, width=16).filter(lambda v: abs(v) > 0.01)


@given(*[numbers] * 7)
@settings(max_examples=60, deadline=None)
def test_an_affine_between_new_units_computes_the_same(
    s: float, t: float, sx: float, tx: float, sy: float, ty: float, x_new: float
) -> None:
    arrays = [frozen([v]) for v in (s, t, sx, tx, sy, ty)]
    reader = Unit(arrays[2], arrays[3], 1 / arrays[2], -arrays[3] / arrays[2])
    writer = Unit(arrays[4], arrays[5], 1 / arrays[4], -arrays[5] / arrays[4])
    scale, shift = between_units(candidate(arrays[0], arrays[1]), reader, writer)
    y = s * (sx * x_new + tx) + t
    np.testing.assert_allclose(sy * (scale * x_new + shift) + ty, y, rtol=1e-9, atol=1e-9)


def test_between_unchanged_units_it_stays_the_same_to_the_bit() -> None:
    s, t = frozen([0.1, 1 / 3]), frozen([0.7, -1e-30])
    same = Unit(np.ones(2), np.zeros(2), np.ones(2), np.zeros(2))
    scale, shift = between_units(candidate(s, t), same, same)
    np.testing.assert_array_equal(scale, s)
    np.testing.assert_array_equal(shift, t)
