"""What the user is told: one site per BatchNorm, in the model's order, with where it went or why it stays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from handmade import Net
from meaning import check_exact

from bnfold.planning.plan import Folding, Plan, Site, make_plan
from bnfold.reasons import Reason

SITES = (
    Site("a", "BatchNormalization", "folded", ("conv",)),
    Site("b", "BatchNormalization", "merged", ("conv", "other")),
    Site("c", "BatchNormalization", "kept", (), Reason.IO),
    Site("d", "BatchNormalization", "kept", (), Reason.NONLINEAR),
)


def planned(net: Net, **more: object) -> Folding:
    folding = make_plan(net.graph(), **more)  # type: ignore[arg-type]
    check_exact(net, folding)
    return folding


def test_an_empty_plan_counts_nothing() -> None:
    assert Plan(()).to_dict() == {
        "counts": {"batch_norms": 0, "folded": 0, "merged": 0, "kept": 0, "affines": 0, "affines_folded": 0},
        "sites": [],
    }


def test_every_site_is_counted_once() -> None:
    plan = Plan(SITES, (Site("m", "Mul", "folded"), Site("n", "Add", "kept", (), Reason.ZERO_PAD)))
    assert (plan.batch_norms, plan.folded, plan.merged, plan.kept) == (4, 1, 1, 2)
    counts = plan.to_dict()["counts"]
    assert counts == {"batch_norms": 4, "folded": 1, "merged": 1, "kept": 2, "affines": 2, "affines_folded": 1}


def test_a_site_reads_as_in_the_contract() -> None:
    assert SITES[1].to_dict() == {
        "name": "b", "op": "BatchNormalization", "status": "merged", "into": ["conv", "other"], "reason": None,
    }  # fmt: skip
    assert SITES[2].to_dict()["reason"] == {"code": "IO", "text": Reason.IO.text}


@pytest.mark.parametrize("value", [SITES[0], Plan(SITES)])
def test_a_plan_cannot_be_changed(value: object) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.sites = ()  # type: ignore[attr-defined]


def test_a_graph_without_affines_has_an_empty_plan() -> None:
    net = Net()
    net.output(net.relu(net.conv(net.input(2, 3, 4, 4), 4)))
    assert planned(net).plan == Plan(())


def test_a_fold_names_the_convolution_that_took_it() -> None:
    net = Net()
    y = net.bn(net.conv(net.input(2, 3, 4, 4), 4, name="conv"), name="norm")
    assert planned(net.output(net.tanh(y))).plan.sites == (Site("norm", "BatchNormalization", "folded", ("conv",)),)


def test_a_preactivation_fold_names_both_ends_of_the_stream() -> None:
    """The scale goes forward, the shift back, and out again behind the sum."""
    net = Net()
    x = net.conv(net.input(2, 3, 5, 5), 4, 3, 1, name="stem")
    y = net.conv(net.relu(net.bn(x, [1.0, 2.0, 3.0, 4.0], name="norm")), 4, 3, 1, name="branch")
    folding = planned(net.output(net.linear(net.mean(net.add(x, y)), 2)))
    [site] = folding.plan.sites
    assert site.status == "folded"
    assert set(site.into) >= {"stem", "branch"}


def test_of_two_readers_one_is_folded_and_the_other_kept() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3, name="conv")
    net.output(net.tanh(net.bn(x, name="first")), net.tanh(net.bn(x, name="second")))
    first, second = planned(net).plan.sites
    assert (first.into[0], first.reason) == ("conv", None)
    assert (second.into, second.reason) == ((), Reason.SHARED_UNIT)


def test_affines_are_listed_apart_under_their_own_name() -> None:
    net = Net()
    x = net.affine(net.conv(net.input(2, 3, 4, 4), 3), np.full((3, 1, 1), 2.0), name="scale", kind="Mul")
    plan = planned(net.output(net.tanh(net.bn(x, name="norm")))).plan
    assert [site.op for site in plan.sites] == ["BatchNormalization"]
    assert [(site.name, site.op, site.status) for site in plan.affines] == [("scale", "Mul", "folded")]


def test_a_constant_that_varies_by_position_is_no_site() -> None:
    """A position embedding is no per-channel affine: there is nothing to fold, so nothing to report."""
    net = Net()
    y = net.affine(net.linear(net.input(2, 5, 3), 4), 1.0, net.random(5, 4))
    assert planned(net.output(net.tanh(y))).plan == Plan(())


def test_batch_norms_outside_the_graph_are_listed_in_the_models_order() -> None:
    """One in training mode is no affine, so the front end names it, with its reason."""
    net = Net()
    y = net.bn(net.conv(net.input(2, 3, 4, 4), 4), name="first")
    net.output(net.tanh(net.bn(net.conv(net.tanh(y), 4), name="last")))
    kept = {"training": Reason.TRAINING, "unnamed": Reason.NO_STATS}
    plan = planned(net, kept=kept, order=["first", "training", "last"]).plan
    assert [(site.name, site.reason) for site in plan.sites] == [
        ("first", None), ("training", Reason.TRAINING), ("last", None), ("unnamed", Reason.NO_STATS),
    ]  # fmt: skip


def test_every_site_that_stays_has_a_reason_and_no_other() -> None:
    net = Net()
    x = net.input(2, 3, 4, 4)
    net.output(net.tanh(net.bn(net.conv(x, 4))), net.bn(x), net.conv(net.bn(x), 4, 3, 1))
    for site in planned(net).plan.sites:
        assert (site.status == "kept") == (site.reason is not None)


def test_planning_twice_gives_the_same() -> None:
    net = Net()
    x = net.input(2, 3, 4, 4)
    net.output(net.tanh(net.bn(net.conv(x, 4))), net.bn(x))
    assert make_plan(net.graph()).plan == make_plan(net.graph()).plan
