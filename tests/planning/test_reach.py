"""Weights that would leave their dtype's range: a free class is balanced, and what still does not fit is named."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import Net, frozen
from meaning import check_exact

from bnfold.planning.plan import Folding, make_plan
from bnfold.planning.reach import Misfits, is_tame
from bnfold.reasons import Reason
from bnfold.units import graph as g
from bnfold.units.affine import rewrite
from bnfold.units.laws import read_laws
from bnfold.units.solver import Solution, solve
from bnfold.units.system import System

LIMIT = 1000.0


def fold(net: Net, limit: float = LIMIT) -> Folding:
    """The plan where no weight may exceed a limit, and its result is exact."""
    graph = net.graph()

    def find(graph: g.Graph, system: System, solution: Solution) -> Misfits:
        large = []
        for op in graph.ops:
            if isinstance(op, g.Linear):
                weight, _ = rewrite(op.kernel, None, *(solution.unit(cells) for cells in system.views[op.name]))
                large += [op.name] if np.abs(weight).max() > limit else []
        return Misfits(tuple(large))

    folding = make_plan(graph, find=find)
    assert not find(graph, folding.system, folding.solution).too_large
    check_exact(net, folding)
    return folding


def ones(out: int, inner: int) -> np.ndarray:
    return frozen(np.ones((out, inner, 1, 1)))


def chain(*scales: float, end: str = "conv") -> Net:
    """Conv → BatchNorms → ReLU, then a Conv (the class is free) or the output (it is not)."""
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 3, weight=ones(3, 3))
    for i, scale in enumerate(scales):
        x = net.bn(x, scale, 0.5, name=f"norm{i}")
    x = net.relu(x)
    return net.output(net.conv(x, 5, weight=ones(5, 3)) if end == "conv" else x)


def statuses(folding: Folding) -> dict[str, Reason | None]:
    return {site.name: site.reason for site in folding.plan.sites}


def test_what_fits_is_not_balanced() -> None:
    """The first convolution takes it all, and the second keeps its bytes."""
    folding = fold(chain(10.0, 90.0))
    assert statuses(folding) == {"norm0": None, "norm1": None}
    assert set(folding.plan.sites[0].into) == {"conv0"}


@pytest.mark.parametrize("scales", [(2000.0,), (100.0, 5000.0), (1e3, 1e2, -1.0), (1e4, 1e-8, 1e9)])
def test_a_free_class_is_balanced(scales: tuple[float, ...]) -> None:
    folding = fold(chain(*scales))
    assert folding.plan.kept == 0
    assert set(folding.plan.sites[0].into) == {"conv0", f"conv{len(scales) + 2}"}


def test_a_class_that_is_tied_keeps_the_most_extreme_affine() -> None:
    assert statuses(fold(chain(10.0, 5000.0, end="output"))) == {"norm0": None, "norm1": Reason.OVERFLOW}


def test_what_does_not_fit_when_balanced_is_kept_one_by_one() -> None:
    folding = fold(chain(1e4, 1e5, 10.0))
    assert statuses(folding) == {"norm0": None, "norm1": Reason.OVERFLOW, "norm2": None}


def test_an_affine_elsewhere_is_not_blamed() -> None:
    net = Net()
    x = net.input(2, 3, 4, 4)
    for name, scale in (("extreme", 900.0), ("far", 2.0)):
        x = net.tanh(net.bn(net.conv(x, 3, weight=ones(3, 3)), scale, name=name))
    x = net.tanh(net.bn(net.conv(x, 3, weight=frozen(np.full((3, 3, 1, 1), 700.0))), 2.0, name="near"))
    assert statuses(fold(net.output(x))) == {"extreme": None, "far": None, "near": Reason.OVERFLOW}


@pytest.mark.parametrize(("scale", "tame"), [(1.0, True), (1e4, True), (1e-4, True), (1e13, False), (1e-13, False)])
def test_ordinary_units_need_no_look_at_weights(scale: float, tame: bool) -> None:
    net = Net()
    net.output(net.tanh(net.bn(net.conv(net.input(2, 3, 4, 4), 3), scale)))
    assert is_tame(solve(read_laws(net.graph()))) is tame


@pytest.mark.parametrize(("shift", "tame"), [(1e11, True), (1e13, False)])
def test_nor_do_ordinary_shifts(shift: float, tame: bool) -> None:
    net = Net()
    net.output(net.tanh(net.bn(net.conv(net.input(2, 3, 4, 4), 3), 1.0, shift)))
    assert is_tame(solve(read_laws(net.graph()))) is tame
