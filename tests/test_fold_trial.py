"""The trial of a changed network beside the one it was: what it must see, and what it must not leave behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import drawn
from torch import nn

import bnfold
from bnfold.frontends.modules.trial import SMALL, Call, do_the_same

SIDE = 2 * SMALL
IMAGE = torch.randn(1, 3, SIDE, SIDE)


class Net(nn.Module):
    """A convolution, a BatchNorm and what a test does with them."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.n, self.run = nn.Conv2d(3, 4, 3, padding=1), drawn(nn.BatchNorm2d(4)), run
        self.sides: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


def plain(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.sides.append(x.shape[-1])
    seen.append(x.shape[-1])
    return torch.relu(net.n(net.a(x)))


seen: list[int] = []


def sides(
    run: Callable[[Any, torch.Tensor], torch.Tensor], changed: Callable[[Any, torch.Tensor], torch.Tensor]
) -> Any:
    """Whether two networks do the same, and the sides of the images that they were called with."""
    seen.clear()
    torch.manual_seed(0)
    before, after = Net(run).eval(), Net(changed).eval()
    after.load_state_dict(before.state_dict())
    return do_the_same(before, after, Call((IMAGE,), {}), {"n": 1}), list(seen)


def test_a_large_image_is_cut_to_a_small_one() -> None:
    assert sides(plain, plain) == (True, [SMALL, SMALL])


def test_small_inputs_are_taken_as_they_are() -> None:
    before = Net(lambda net, x: net.n(net.a(x))).eval()
    small = torch.randn(1, 3, SMALL, 5)
    assert do_the_same(before, before, Call((), {"x": small}), {})
    assert not do_the_same(before, Net(lambda net, x: net.a(x)).eval(), Call((small,), {}), {})


def fussy(net: Any, x: torch.Tensor) -> torch.Tensor:
    if x.shape[-1] != SIDE:
        raise ValueError("another size")
    return plain(net, x)


def skips_on_small(net: Any, x: torch.Tensor) -> torch.Tensor:
    """Forward goes another way on small images, where both agree."""
    seen.append(x.shape[-1])
    y = net.a(x)
    return net.n(y) if x.shape[-1] == SIDE else y


def skips(net: Any, x: torch.Tensor) -> torch.Tensor:
    seen.append(x.shape[-1])
    return net.a(x)


def doubled_on_small(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = plain(net, x)
    return y if x.shape[-1] == SIDE else 2 * y


@pytest.mark.parametrize(
    ("run", "changed", "same", "called"),
    [
        (fussy, fussy, True, [SIDE, SIDE]),
        (skips_on_small, skips_on_small, True, [SMALL, SMALL, SIDE, SIDE]),
        (skips_on_small, skips, False, [SMALL, SMALL, SIDE, SIDE]),
        (plain, doubled_on_small, True, [SMALL, SMALL, SIDE, SIDE]),
        (plain, fussy, True, [SMALL, SIDE, SIDE]),
        (plain, skips, False, [SMALL, SMALL, SIDE, SIDE]),
    ],
)
def test_the_image_as_given_decides_where_the_small_one_says_nothing(
    run: Any, changed: Any, same: bool, called: list[int]
) -> None:
    assert sides(run, changed) == (same, called)


def test_what_forward_notes_is_taken_off_again() -> None:
    """A cache for the size of the trial must not be there at the first real call."""

    def cached(net: Any, x: torch.Tensor) -> torch.Tensor:
        if getattr(net, "grid", None) is None and not torch.compiler.is_compiling():
            net.grid = torch.ones(x.shape[-2:])
        return net.n(net.a(x)) * (torch.ones(x.shape[-2:]) if net.grid is None else net.grid)

    before, after = Net(cached).eval(), Net(cached).eval()
    after.load_state_dict(before.state_dict())
    before.sizes, before.places = {"a": 1}, {1, 2}
    assert do_the_same(before, after, Call((IMAGE,), {}), {})
    assert not hasattr(before, "grid")
    assert not hasattr(after, "grid")
    assert after(IMAGE).shape[-1] == SIDE
    assert before.sizes == {"a": 1}
    assert before.places == {1, 2}


def test_what_forward_adds_to_its_lists_is_taken_off_again() -> None:
    noting = Net(plain).eval()
    assert do_the_same(noting, noting, Call((IMAGE,), {}), {"n": 1})
    assert noting.sides == []


def test_a_forward_that_asks_for_the_class_of_its_norm_is_a_graph() -> None:
    def asks(net: Any, x: torch.Tensor) -> torch.Tensor:
        y = net.n(net.a(x))
        return torch.relu(y) if isinstance(net.n, nn.BatchNorm2d) else torch.sigmoid(y)

    torch.manual_seed(0)
    result = bnfold.fold(Net(asks).eval(), IMAGE)
    assert result.plan.notes == ("the result is a graph, because forward looks at its BatchNorms",)
