"""Where a new unit would cost precision or range, with the limits as numbers, and that the classic fold is exempt."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from handmade import Net, frozen
from meaning import check_exact, evaluate, units_of

from bnfold.planning.conditioning import worst_site
from bnfold.planning.plan import make_plan
from bnfold.reasons import Reason
from bnfold.units.laws import read_laws
from bnfold.units.solver import solve

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def judged(net: Net) -> tuple[str, Reason] | None:
    graph = net.graph()
    system = read_laws(graph)
    return worst_site(system, solve(system), graph)


def reasons(net: Net) -> dict[str, Reason | None]:
    folding = make_plan(net.graph())
    check_exact(net, folding)
    return {site.name: site.reason for site in (*folding.plan.sites, *folding.plan.affines)}


# What must not be refused


@pytest.mark.parametrize("shift", [1.0, 1e6, 1e12])
def test_conv_bn_is_exempt(shift: float) -> None:
    """The new value is the BatchNorm's own output, which the original computed as well."""
    net = Net()
    y = net.bn(net.conv(net.input(2, 3, 4, 4), 3), 1.0, shift, sigma=1.0)
    assert judged(net.output(net.tanh(y))) is None


def test_an_ordinary_preactivation_network_is_no_cause_for_concern() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 4, 3, 1)
    for _ in range(2):
        x = net.add(x, net.conv(net.relu(net.bn(x, sigma=1.0)), 4, 3, 1))
    assert judged(net.output(net.tanh(x))) is None


def test_what_has_no_statistics_is_not_judged() -> None:
    """A Mul and an Add know nothing of their input's spread."""
    net = Net()
    assert judged(net.output(net.conv(net.affine(net.input(2, 3, 4, 4), 1.0, 1e9), 2))) is None


def test_a_large_mean_is_no_harm_by_itself() -> None:
    """Preprocessing that centres the input: |T| is large where the input is as large, and its output has no shift."""
    net = Net()
    x = net.bn(net.conv(net.input(2, 3, 4, 4), 3), 0.01, -100.0, sigma=100.0)
    assert judged(net.output(net.conv(net.relu(x), 2))) is None


# The limit: 2^(bits/4) standard deviations


@pytest.mark.parametrize(
    ("precision", "limit"), [(24, 64.0), (53, 2.0 ** (53 / 4)), (11, 2.0 ** (11 / 4)), (8, 2.0 ** (8 / 4))]
)
@pytest.mark.parametrize("gamma", [1.0, -0.25])
def test_a_forward_fold_is_refused_above_the_limit(precision: int, limit: float, gamma: float) -> None:
    """x → BatchNorm → conv: the conv reads x, which lacks the shift: |t| against |gamma|."""
    for share, refused in ((0.99, False), (1.01, True)):
        net = Net(precision=precision)
        x = net.bn(net.input(2, 3, 4, 4), gamma, [0.0, share * limit * gamma, 0.0], sigma=1.0, name="norm")
        want = ("norm", Reason.ILL_CONDITIONED) if refused else None
        assert judged(net.output(net.conv(x, 2, weight=frozen(np.ones((2, 3, 1, 1)), np.float32)))) == want


def test_the_spread_is_the_inputs() -> None:
    """s = gamma/σ: the output's spread is |s|·σ, so the same shift is harmless where σ is large."""
    for sigma, refused in ((0.5, True), (2.0, False)):
        net = Net()
        x = net.bn(net.input(2, 3, 4, 4), 1.0, 75.0, sigma=sigma)
        assert (judged(net.output(net.conv(x, 2))) is not None) == refused


def test_a_stream_with_another_reader_is_judged() -> None:
    """Pre-activation: t/s goes into the stream, and a sum reads it."""
    for shift, refused in ((0.1, False), (300.0, True)):
        net = Net()
        x = net.conv(net.input(2, 3, 5, 5), 4, 3, 1)
        x = net.add(x, net.conv(net.relu(net.bn(x, 1.0, shift, sigma=1.0)), 4, 3, 1))
        assert (judged(net.output(net.tanh(net.conv(x, 2)))) is not None) == refused


def test_a_channel_that_is_a_constant_is_not_judged() -> None:
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), [0.0, 1.0, 1.0], [1e9, 0.0, 0.0], sigma=1.0)
    assert judged(net.output(net.conv(x, 2))) is None


def test_a_spread_of_zero_allows_no_shift() -> None:
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), 1.0, [0.0, 1.0, 0.0], sigma=[1.0, 0.0, 1.0], name="norm")
    assert judged(net.output(net.conv(x, 2))) == ("norm", Reason.ILL_CONDITIONED)


def test_the_worst_is_refused_first_and_the_others_may_go() -> None:
    net = Net()
    x = net.input(2, 3, 4, 4)
    for name, shift in (("bad", 300.0), ("worst", 3000.0), ("good", 1.0)):
        net.output(net.conv(net.bn(x, 1.0, shift, sigma=1.0, name=name), 2))
    assert judged(net) == ("worst", Reason.ILL_CONDITIONED)
    assert reasons(net) == {"bad": Reason.ILL_CONDITIONED, "worst": Reason.ILL_CONDITIONED, "good": None}


def test_a_batch_norm_that_stays_is_a_reader_as_well() -> None:
    """One of two readers sets the unit: a tiny gamma and a large beta, which drown what the other one has to read.

    In float32 the rewritten graph then loses all of it: measured below in float64, where 8 of 16 digits are gone.
    """
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3)
    for name, scale, shift in (("tiny", 1e-3, 1e5), ("other", 1.0, 0.5)):
        net.output(net.tanh(net.bn(x, scale, shift, sigma=1.0, name=name)))
    folding = make_plan(net.graph())
    feeds = net.feeds()
    before, after = evaluate(net, feeds), evaluate(net, feeds, units_of(net, folding.solution))
    other = net.outputs[1]
    assert float((before[other] - after[other]).abs().max()) < 1e-12
