"""Which affines vanish, on graphs made by hand: the theorems, the refusals with their reasons, and the search."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import Net, frozen
from meaning import check_exact, check_units

from bnfold.reasons import Reason
from bnfold.units import solver as solver_module
from bnfold.units.laws import read_laws
from bnfold.units.solver import PRECEDENCE, Solution, Solver, solve


def solved(net: Net, excluded: dict[str, Reason] | None = None) -> Solution:
    """The solution, after a check that the rewritten graph computes the same."""
    system = read_laws(net.graph())
    solution = solve(system, excluded)
    check_exact(net, solution)
    assert solution.removed | set(solution.refused) == {c.op.name for c in system.candidates}
    assert not solution.removed & set(solution.refused)
    return solution


# What must not change


def test_without_affines_every_unit_is_the_identity() -> None:
    net = Net()
    net.output(net.relu(net.conv(net.input(2, 3, 4, 4), 4, 3, 1)))
    solution = solved(net)
    assert solution.removed == frozenset()
    assert solution.unit(np.arange(len(solution.scale))).is_identity


def test_with_everything_excluded_every_unit_is_the_identity() -> None:
    net = Net()
    net.output(net.tanh(net.bn(net.conv(net.input(2, 3, 4, 4), 4), name="norm")))
    solution = solved(net, {"norm": Reason.EXCLUDED})
    assert solution.refused == {"norm": Reason.EXCLUDED}
    assert solution.unit(np.arange(len(solution.scale))).is_identity


def test_a_component_without_removed_affines_is_not_touched() -> None:
    """The other half of the model folds; this one keeps every weight."""
    net = Net()
    x = net.input(2, 3, 4, 4)
    net.output(net.tanh(net.bn(net.conv(x, 4))), net.relu(net.conv(x, 2, name="other")))
    system = read_laws(net.graph())
    solution = solve(system)
    assert all(solution.unit(cells).is_identity for cells in system.views["other"])


def test_units_that_differ_from_1_by_rounding_are_1() -> None:
    """Two BatchNorms that undo each other leave the weights at both ends alone, bit for bit: 49 · (1 / 49) < 1."""
    net = Net()
    x = net.bn(net.relu(net.conv(net.input(2, 3, 4, 4), 4, name="first")), [1 / 49] * 4, 0.0)
    net.output(net.conv(net.bn(x, [49.0] * 4, 0.0), 2, 3, 1, name="last"))
    system = read_laws(net.graph())
    solution = solve(system)
    assert len(solution.removed) == 2
    unit = solution.unit(np.concatenate([*system.views["first"], *system.views["last"]]))
    assert set(unit.scale.tolist()) <= {1.0}


def test_solving_twice_gives_the_same() -> None:
    """The search leaves no traces: the state is rolled back."""
    solver = Solver(read_laws(preactivation(3).graph()))
    first, kept, second = solver.solve({}), solver.solve({"norm0": Reason.EXCLUDED}), solver.solve({})
    assert kept.removed == first.removed - {"norm0"}
    assert (first.removed, dict(first.refused)) == (second.removed, dict(second.refused))
    for name in ("scale", "shift", "inverse_scale", "inverse_shift"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


# What follows from the theory


def preactivation(blocks: int, gamma: object = None) -> Net:
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 4, 3, 1)
    for i in range(blocks):
        y = net.conv(net.relu(net.bn(x, gamma, name=f"norm{2 * i}")), 4, 3, 1)
        x = net.add(x, net.conv(net.relu(net.bn(y, name=f"norm{2 * i + 1}")), 4, 3, 1))
    return net.output(net.linear(net.mean(net.relu(net.bn(x, gamma, name="last"))), 5))


def test_conv_bn_is_the_classic_fold() -> None:
    net = Net()
    s, t = frozen([2.0, -0.5, 3.0]), frozen([1.0, 0.0, -1.0])
    net.output(net.tanh(net.bn(net.conv(net.input(2, 3, 4, 4), 3, 3, 1, name="conv"), s, t)))
    system = read_laws(net.graph())
    solution = solved(net)
    _, writer = (solution.unit(cells) for cells in system.views["conv"])
    np.testing.assert_allclose(writer.inverse_scale, s)
    np.testing.assert_allclose(writer.inverse_shift, t)


def test_a_preactivation_network_loses_all_its_batch_norms() -> None:
    net = preactivation(3)
    solution = solved(net)
    assert len(solution.removed) == 7
    check_units(net, solution)


def test_one_negative_gamma_on_a_stream_keeps_a_batch_norm() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 4, 3, 1)
    for i, gamma in enumerate(([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, -3.0, 4.0], [2.0, 2.0, 3.0, 1.0])):
        x = net.add(x, net.conv(net.relu(net.bn(x, gamma, name=f"norm{i}")), 4, 3, 1))
    solution = solved(net.output(net.linear(net.mean(x), 3)))
    assert solution.refused == {"norm1": Reason.NEGATIVE_GAMMA}


def test_a_stream_may_change_its_sign_as_a_whole() -> None:
    """Every BatchNorm that reads channel 2 is negative there, so the stream is stored upside down."""
    net = preactivation(2, gamma=[1.0, 2.0, -3.0, 4.0])
    solution = solved(net)
    assert len(solution.removed) == 5


def test_iresnet_takes_the_shift_into_the_stream() -> None:
    """BatchNorm → zero-padded convolution: the scale folds forward, the shift backward."""
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 4, 3, 1)
    for _ in range(2):
        y = net.leaky(net.bn(net.conv(net.bn(x), 4, 3, 1)))
        x = net.add(x, net.bn(net.conv(y, 4, 3, 1)))
    solution = solved(net.output(net.linear(net.reshape(net.bn(x), 2, 64), 3)))
    assert (len(solution.removed), solution.refused) == (7, {})


def test_a_batch_norm_over_a_concatenation_splits_over_its_producers() -> None:
    net = Net()
    x = net.input(2, 3, 4, 4)
    solution = solved(net.output(net.tanh(net.bn(net.concat(net.conv(x, 2), net.conv(x, 3), net.conv(x, 1))))))
    assert solution.refused == {}


def test_layer_scale_folds_into_the_convolution_before_it() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3)
    y = net.affine(net.conv(net.relu(x), 3), [[[1e-5]], [[2e-5]], [[-1e-5]]])
    solution = solved(net.output(net.tanh(net.add(x, y))))
    assert solution.refused == {}


def test_preprocessing_folds_where_nothing_is_padded() -> None:
    net = Net()
    mean, std = np.reshape([0.5, 0.4, 0.3], (3, 1, 1)), np.reshape([0.2, 0.3, 0.25], (3, 1, 1))
    x = net.affine(net.affine(net.input(2, 3, 4, 4), 1 / 255), 1 / std, -mean / std)
    solution = solved(net.output(net.conv(x, 4, 3)))
    assert solution.refused == {}


def test_one_of_two_readers_sets_the_unit_and_the_other_is_rebased() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3, name="conv")
    s1, t1, s2, t2 = (frozen(v) for v in ([2.0, 0.5, -1.0], [1.0, 2.0, 3.0], [1.0, 3.0, 5.0], [0.0, -1.0, 1.0]))
    net.output(net.tanh(net.bn(x, s1, t1, name="first")), net.tanh(net.bn(x, s2, t2, name="second")))
    system = read_laws(net.graph())
    solution = solved(net)
    assert solution.refused == {"second": Reason.SHARED_UNIT}
    unit = solution.unit(system.views["conv"][1])
    np.testing.assert_allclose(s2 * unit.scale, s2 / s1)
    np.testing.assert_allclose(s2 * unit.shift + t2, t2 - s2 * t1 / s1)


def test_a_matrix_product_reshaped_to_rows_is_an_ordinary_backward_fold() -> None:
    """LeViT: MatMul → Add → Reshape → BatchNorm."""
    net = Net()
    y = net.affine(net.linear(net.input(2, 5, 3), 4, bias=False), 1.0, net.random(4))
    y = net.bn(net.reshape(y, 10, 4))
    solution = solved(net.output(net.tanh(net.reshape(y, 2, 5, 4))))
    assert solution.refused == {}


def test_densenet_is_stuck_where_one_map_is_read_through_many_batch_norms() -> None:
    """A theorem, not a missing rule: every reader wants another unit of the first map."""
    net = Net()
    maps = [net.conv(net.input(2, 3, 4, 4), 2, 3, 1)]
    for i in range(3):
        x = maps[0] if len(maps) == 1 else net.concat(*maps)
        maps.append(net.conv(net.relu(net.bn(x, name=f"norm{i}")), 2, 3, 1))
    solution = solved(net.output(net.linear(net.mean(net.concat(*maps)), 3)))
    assert len(solution.removed) == 1
    assert set(solution.refused.values()) == {Reason.SHARED_UNIT}


def test_tangled_channels_fold_in_one_scale_only() -> None:
    for gamma, kept in (([2.0] * 4, {}), ([2.0, 2.0, 2.0, 1.0], {"norm": Reason.SHARED_UNIT})):
        net = Net()
        x = net.conv(net.input(2, 3, 4, 4), 4)
        y = net.bn(net.add(x, net.take(x, [3, 0, 1, 2])), gamma, 1.0, name="norm")
        assert solved(net.output(net.tanh(y))).refused == kept


# A gamma of zero


def test_a_zero_gamma_behind_a_convolution_makes_its_filter_zero() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3)
    assert solved(net.output(net.tanh(net.bn(x, [0.0, 1.0, 2.0], [3.0, 1.0, 1.0])))).refused == {}


def test_a_zero_gamma_before_a_convolution_goes_into_its_bias() -> None:
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), [0.0, 1.0, 2.0], [3.0, 1.0, 1.0])
    assert solved(net.output(net.conv(x, 2, 3))).refused == {}


def test_a_zero_gamma_before_a_padded_convolution_stays() -> None:
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), [0.0, 1.0, 2.0], [3.0, 0.0, 0.0], name="norm")
    assert solved(net.output(net.conv(x, 2, 3, 1))).refused["norm"] in (Reason.ZERO_PAD, Reason.ZERO_GAMMA)


def test_a_zero_gamma_on_a_tensor_with_another_reader_stays() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3)
    net.output(net.tanh(net.bn(x, [0.0, 1.0, 2.0], 0.0, name="norm")), net.relu(x))
    assert solved(net).refused == {"norm": Reason.ZERO_GAMMA}


@pytest.mark.parametrize(("shift", "kept"), [(-1.0, {}), (0.0, {}), (1.0, {"norm": Reason.ZERO_GAMMA})])
def test_a_dead_channel_is_zero_behind_a_relu(shift: float, kept: dict[str, Reason]) -> None:
    """With t ≤ 0 it is zero whatever its unit; with t > 0 it is a constant that the padding does not let through."""
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 3, 3, 1)
    y = net.conv(net.relu(net.bn(x, [0.0, 1.0, 2.0], [shift, 1.0, 1.0], name="norm")), 3, 3, 1)
    assert solved(net.output(net.linear(net.mean(net.add(x, y)), 2))).refused == kept


def test_a_constant_channel_passes_a_relu_where_no_padding_is() -> None:
    """max(0·x + 3, 0) = 3: its reader's bias takes it."""
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 3, 3, 1)
    y = net.conv(net.relu(net.relu(net.bn(x, [0.0, 1.0, 2.0], [3.0, 1.0, 1.0]))), 3)
    assert solved(net.output(net.linear(net.mean(net.add(x, y)), 2))).refused == {}


def test_a_constant_channel_does_not_pass_a_leaky_relu() -> None:
    """It is positive and would, but nothing says so."""
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 3, 3, 1)
    y = net.conv(net.leaky(net.bn(x, [0.0, 1.0, 2.0], [3.0, 1.0, 1.0], name="norm")), 3)
    assert solved(net.output(net.linear(net.mean(net.add(x, y)), 2))).refused == {"norm": Reason.ZERO_GAMMA}


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("shift", [-5.0, 1.0, 5.0])
def test_a_constant_channel_is_never_clipped(shift: float, stays: bool) -> None:
    """relu(3) read through x + shift before a padded Conv, which wants T = −shift of it: at most 3 leaves 3 − T ≥ 0."""
    net = Net()
    x = net.bn(net.conv(net.input(2, 3, 5, 5), 3), [0.0, 0.0, 0.0], [3.0, 3.0, 3.0], name="norm")
    y = net.conv(net.bn(net.relu(x), 1.0, shift), 3, 3, 1)
    net.output(net.tanh(y))
    solved(net, {"norm": Reason.EXCLUDED} if stays else None)


def test_a_dead_channel_counts_only_if_nothing_but_a_relu_sees_it() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 3)
    y = net.bn(x, [0.0, 1.0, 2.0], [-1.0, 1.0, 1.0])
    solved(net.output(net.conv(net.relu(y), 3, 3, 1), y, x))


@pytest.mark.parametrize("first", [[2.0, 3.0, 0.5], [0.0, 3.0, 0.5]])
def test_a_zero_gamma_behind_another_affine(first: list[float]) -> None:
    """If its result is given up (written, never read), it is the one that writes it, and cannot vanish as well."""
    net = Net()
    x = net.affine(net.conv(net.input(2, 3, 4, 4), 3), np.reshape(first, (3, 1, 1)))
    solution = solved(net.output(net.tanh(net.bn(x, [0.0, 1.0, 2.0], [3.0, 1.0, 1.0], name="norm"))))
    assert "norm" in solution.removed


def test_a_zero_gamma_before_a_maximum_with_a_constant() -> None:
    """max(t, C) is C where C > t: the constant operand cannot be written in a unit of scale 0."""
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), [0.0, 1.0, 2.0], [-1.0, 1.0, 1.0])
    solved(net.output(net.conv(net.maximum(x, constants=[frozen(np.zeros((1, 3, 1, 1)))]), 2)))


def test_a_zero_gamma_before_a_concatenation_with_constant_positions() -> None:
    """A class token beside the features: its constant cannot be written in a unit of scale 0 either."""
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), [0.0, 1.0, 2.0], [-1.0, 1.0, 1.0])
    solved(net.output(net.conv(net.concat(x, net.random(2, 3, 4, 1), axis=3), 2)))


def test_a_zero_gamma_before_a_concatenation_with_constant_channels() -> None:
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), [0.0, 1.0, 2.0], [-1.0, 1.0, 1.0])
    assert solved(net.output(net.conv(net.concat(x, net.random(2, 1, 4, 4)), 2))).refused == {}


# Reasons


def test_parameters_that_are_not_finite_are_refused() -> None:
    for scale, shift in ((np.nan, 0.0), (1.0, np.inf)):
        net = Net()
        y = net.bn(net.conv(net.input(2, 3, 4, 4), 3), [scale, 1.0, 1.0], [shift, 0.0, 0.0], name="norm")
        solution = solve(read_laws(net.output(net.tanh(y)).graph()))
        assert solution.refused == {"norm": Reason.OVERFLOW}
        assert solution.unit(np.arange(len(solution.scale))).is_identity


@pytest.mark.parametrize("reason", [Reason.HOOK, Reason.BOUNDARY, Reason.NONLINEAR, Reason.TRAINING, Reason.DTYPE])
def test_the_user_is_told_what_stands_on_both_sides(reason: Reason) -> None:
    net = Net()
    y = net.bn(net.tanh(net.input(2, 3, 4, 4), reason), name="norm")
    assert solved(net.output(net.tanh(net.tanh(y, reason)))).refused == {"norm": reason}


def test_of_two_walls_the_one_that_can_be_changed_is_named() -> None:
    net = Net()
    y = net.bn(net.tanh(net.input(2, 3, 4, 4), Reason.NONLINEAR), name="norm")
    assert solved(net.output(net.tanh(net.tanh(y, Reason.HOOK)))).refused == {"norm": Reason.HOOK}
    assert PRECEDENCE.index(Reason.HOOK) < PRECEDENCE.index(Reason.NONLINEAR)


def test_every_reason_a_wall_can_have_has_a_place() -> None:
    """Found by solving alone, or by the conditioning, or not at all for a constant affine: the rest are walls."""
    own = {Reason.NEGATIVE_GAMMA, Reason.ZERO_GAMMA, Reason.ILL_CONDITIONED, Reason.OVERFLOW, Reason.NO_STATS}
    assert set(PRECEDENCE) | own == set(Reason)
    assert len(set(PRECEDENCE)) == len(PRECEDENCE)


def test_a_shift_with_nowhere_to_go_is_the_paddings_fault() -> None:
    net = Net()
    y = net.bn(net.relu(net.conv(net.input(2, 3, 4, 4), 3)), [1.0, 2.0, 3.0], [0.0, 0.0, 1.0], name="norm")
    assert solved(net.output(net.conv(y, 2, 3, 1))).refused == {"norm": Reason.ZERO_PAD}


def test_a_shift_that_another_batch_norm_decided_is_a_shared_unit() -> None:
    """Same scale, other shift: both read the conv, and both sit before a ReLU."""
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3)
    for name, shift in (("first", [1.0, 2.0, 3.0]), ("second", [1.0, 2.0, 4.0])):
        net.output(net.conv(net.relu(net.bn(x, 1.0, shift, name=name)), 2, 3, 1))
    assert solved(net).refused == {"second": Reason.SHARED_UNIT}


# The search


def test_greed_is_not_enough() -> None:
    """The BatchNorm over the concatenation saves most traffic, and stands in the way of the other two."""
    net = Net()
    x = net.input(2, 3, 4, 4)
    a, b = net.conv(x, 3), net.conv(x, 3)
    for name, y in (("both", net.concat(a, b)), ("a", a), ("b", b)):
        net.output(net.tanh(net.bn(y, name=name)))
    solver = Solver(read_laws(net.graph()))
    order = sorted(solver.members, key=lambda m: m.weight, reverse=True)
    assert [m.name for m in order] == ["both", "a", "b"]
    assert [m.name for m in solver._greedy(order)[0]] == ["both"]
    assert solved(net).removed == {"a", "b"}


def traps(pairs: int) -> Net:
    """Pairs of convs, each with the trap of `test_greed_is_not_enough`, and a BatchNorm over all of them."""
    net = Net()
    x = net.input(2, 3, 4, 4)
    convs = [net.conv(x, 3) for _ in range(2 * pairs)]
    net.output(net.tanh(net.bn(net.concat(*convs), name="all")))
    for i in range(pairs):
        net.output(net.tanh(net.bn(net.concat(*convs[2 * i : 2 * i + 2]), name=f"pair{i}")))
    for i, conv in enumerate(convs):
        net.output(net.tanh(net.bn(conv, name=f"one{i}")))
    return net


@pytest.mark.parametrize("pairs", [1, 2, 3, 5, 6])
def test_the_best_set_is_found_in_small_and_large_components(pairs: int) -> None:
    """4 and 7 affines are searched exhaustively, 10 as well; 16 and 19 by exchanges."""
    net = traps(pairs)
    [component] = Solver(read_laws(net.graph())).components().values()
    assert (len(component) > solver_module.EXACT) == (pairs > 3)
    assert solved(net).removed == {f"one{i}" for i in range(2 * pairs)}


def test_exchanges_find_what_exact_search_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two large ones is given up for two small ones, one step after the other."""
    net = Net()
    x = net.input(2, 3, 4, 4)
    convs = [net.conv(x, 3) for _ in range(4)]
    for i in (0, 1):
        net.output(net.tanh(net.bn(net.concat(convs[2 * i], convs[2 * i + 1]), name=f"row{i}")))
    for conv, name in zip(convs, "abcd", strict=True):
        net.output(net.tanh(net.bn(conv, name=name)))
    assert solved(net).removed == set("abcd")
    monkeypatch.setattr(solver_module, "EXACT", 0)
    assert solved(net).removed == set("abcd")


def test_batch_norms_go_before_other_affines() -> None:
    """Two multiplications against one BatchNorm over both convs: the BatchNorm wins."""
    net = Net()
    x = net.input(2, 3, 4, 4)
    a, b = net.conv(x, 3), net.conv(x, 3)
    net.output(net.tanh(net.bn(net.concat(a, b), name="norm")))
    for i, y in enumerate((a, b)):
        net.output(net.tanh(net.affine(y, np.reshape([2.0, 3.0, 4.0], (3, 1, 1)), name=f"mul{i}")))
    assert solved(net).removed == {"norm"}


def test_components_do_not_meet_across_rigid_operators() -> None:
    net = Net()
    x = net.input(2, 3, 4, 4)
    y = net.tanh(net.bn(net.conv(x, 3), name="first"))
    net.output(net.tanh(net.bn(net.conv(y, 3), name="second")))
    solver = Solver(read_laws(net.graph()))
    assert [[c.op.name for c in group] for group in solver.components().values()] == [["first"], ["second"]]


def test_components_meet_through_sums() -> None:
    net = preactivation(3)
    sizes = [len(group) for group in Solver(read_laws(net.graph())).components().values()]
    assert sorted(sizes) == [1, 1, 1, 4]


def test_the_free_scale_of_a_class_leaves_most_weights_alone() -> None:
    """A stream between a small and a large convolution: the small one is rewritten."""
    net = Net()
    x = net.conv(net.input(2, 1, 6, 6), 4, name="small")
    y = net.bn(x, [2.0, 3.0, 4.0, 5.0], 0.0)
    net.output(net.conv(net.relu(y), 16, 5, name="large"))
    system = read_laws(net.graph())
    solution = solved(net)
    assert solution.unit(system.views["large"][0]).is_identity
    assert not solution.unit(system.views["small"][1]).is_identity
