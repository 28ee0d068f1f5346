"""Memory that nothing may write to: who is refused, who is not, and that a fold never writes to what came in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from networks import drawn
from torch import nn

import bnfold
from bnfold.frontends.modules import fold as folding
from bnfold.frontends.modules import trial
from bnfold.frontends.modules.untouched import Untouched, memory_of


def test_reading_and_writing_elsewhere_are_as_ever() -> None:
    mine, other = torch.ones(3), torch.zeros(3)
    with Untouched([mine]) as memory:
        other.add_(mine)
        torch.add(mine, mine, out=other)
        made = (mine * 2).relu_()
    assert not memory.refused
    assert other.tolist() == made.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "write",
    [
        lambda t: t.mul_(2),
        lambda t: t.data.mul_(2),
        lambda t: t[1:].fill_(7.0),
        lambda t: t.view(-1).t().clamp_(max=0.5),
        lambda t: t.detach().copy_(torch.zeros(3)),
        lambda t: torch.add(t, 1, out=t),
        lambda t: torch._foreach_add_([torch.zeros(1), t], 1.0),
        lambda t: t.__setitem__(0, 5.0),
        lambda t: nn.init.zeros_(t),
        lambda t: nn.functional.relu(t, inplace=True),
    ],
)
def test_what_writes_is_refused_and_noted_even_if_the_refusal_is_swallowed(
    write: Callable[[torch.Tensor], Any],
) -> None:
    mine = torch.ones(3)
    with Untouched([mine]) as memory, pytest.raises(RuntimeError, match="would write to memory that is shared"):
        write(mine)
    assert memory.refused
    assert mine.tolist() == [1.0, 1.0, 1.0]


def test_tensors_without_memory_of_one_piece_have_no_place() -> None:
    assert memory_of(torch.ones(2).to_sparse()) is None
    assert memory_of(torch.ones(0)) is None
    whole = torch.ones(4)
    assert memory_of(whole[2:]) == memory_of(whole)


class Writes(nn.Module):
    """Writes to a weight that the fold leaves as it is, where no graph shows it."""

    def __init__(self, write: Callable[[Writes], Any]) -> None:
        super().__init__()
        self.a, self.n, self.head, self.write = nn.Conv2d(3, 4, 3), drawn(nn.BatchNorm2d(4)), nn.Linear(4, 5), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling():
            self.write(self)
        return self.head(torch.sigmoid(self.n(self.a(x))).mean((2, 3)))


def halves(net: Writes) -> None:
    net.head.weight.data.mul_(0.5)


def halves_if_folded(net: Writes) -> None:
    if not isinstance(net.n, nn.BatchNorm2d):
        halves(net)


def halves_and_hides_it(net: Writes) -> None:
    with suppress(RuntimeError):
        halves_if_folded(net)


@pytest.mark.parametrize("write", [halves_if_folded, halves_and_hides_it])
def test_the_trial_of_the_copy_writes_nothing_to_the_network_that_came_in(write: Callable[[Writes], Any]) -> None:
    torch.manual_seed(0)
    net = Writes(write).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    bnfold.fold(net, torch.randn(2, 3, 8, 8))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_is_compiled_inside_a_network_is_still_compiled_after_the_trial() -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    torch.manual_seed(0)
    double = torch.compile(lambda x: 2 * x, backend=backend)
    net = Writes(lambda net: double(net.head.weight.detach())).eval()
    image = torch.randn(2, 3, 8, 8)
    bnfold.fold(net, image)
    assert not compiled
    net(image)
    assert len(compiled) == 1


def test_the_trial_needs_no_memory_for_what_the_copy_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that stay as they are get memory of their own last, after the trial; statistics before it."""
    torch.manual_seed(0)
    net = Writes(lambda net: None).eval()
    net.register_buffer("scale", torch.ones(1))
    seen = []
    real = trial.do_the_same

    def looked_at(before: nn.Module, after: Any, *rest: Any) -> bool:
        mine = {memory_of(t) for t in (*before.parameters(), *before.buffers())}
        seen.append((memory_of(after.head.weight) in mine, memory_of(after.scale) in mine))
        return real(before, after, *rest)

    for place in (trial, folding):
        monkeypatch.setattr(place, "do_the_same", looked_at)
    folded: Any = bnfold.fold(net, torch.randn(2, 3, 8, 8)).model
    assert seen == [(True, False)]
    mine = {memory_of(t) for t in (*net.parameters(), *net.buffers())}
    assert not mine & {memory_of(t) for t in (*folded.parameters(), *folded.buffers())}


@pytest.mark.parametrize("write", [halves, halves_if_folded, halves_and_hides_it])
def test_a_network_that_writes_to_itself_is_tried_with_memory_of_its_own(
    write: Callable[[Writes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = Writes(write).eval()
    calls = []
    real = trial.do_the_same

    def counted(*given: Any) -> bool:
        calls.append(memory_of(given[0].head.weight) == memory_of(given[1].head.weight))
        return real(*given)

    for place in (trial, folding):
        monkeypatch.setattr(place, "do_the_same", counted)
    bnfold.fold(net, torch.randn(2, 3, 8, 8))
    assert calls == [True, False]
