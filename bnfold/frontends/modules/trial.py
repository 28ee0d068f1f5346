"""A trial of the changed copy beside the network: a forward that looks at what is gone fails, or goes elsewhere.

Forward can do with a BatchNorm what no graph shows: ask for its class, its children or its eps. So both are called, and
their outputs compared roughly. A large image is cut to a small one first, which costs a tenth; agreement there counts
if every module that changed is called as often as in the program, so that forward goes the same way.

What forward notes on its modules meanwhile (a cache for a size, a counter) is taken off again.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from bnfold.frontends.modules.untouched import Untouched

AGREE = 1e-2  # of the output's size: what a trial must reach to show that forward did not look at a BatchNorm
AGREE_ROUGHLY = 0.25  # the same for two-byte floats
SMALL = 64  # the longest side of a small image
IMAGE_RANK = 4


@dataclass(frozen=True)
class Call:
    """How a network is called.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        dynamic_shapes: As `torch.export.export` takes them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None


def do_the_same(before: nn.Module, after: nn.Module, call: Call, counts: Mapping[str, int]) -> bool:
    """Whether two networks do roughly the same when they are called.

    Args:
        before: The network as it was; left as it is.
        after: The network that should do the same; left as it is.
        call: How to call them.
        counts: How often modules of both are called, by path.
    """
    small = replace(call, args=_cut(call.args), kwargs=_cut(call.kwargs))
    if _size(small) < _size(call):
        try:
            if _agree(before, after, small, counts):
                return True
        except Exception:  # the network takes no smaller image
            pass
    return _agree(before, after, call, {})


def do_the_same_unwritten(
    before: nn.Module, after: nn.Module, call: Call, counts: Mapping[str, int], shared: Iterable[torch.Tensor]
) -> bool:
    """Whether two networks do roughly the same, and neither would write to what they share; else nothing is said.

    Args:
        before: As for `do_the_same`.
        after: As for `do_the_same`.
        call: As for `do_the_same`.
        counts: As for `do_the_same`.
        shared: Tensors whose memory both networks have; it stays as it is.
    """
    eager = torch.compiler.set_stance("force_eager")  # what is compiled would be given up for good inside the guard
    with eager, Untouched(shared) as memory:
        try:
            same = do_the_same(before, after, call, counts)
        except Exception:  # told, if it is not the refusal, by the call with memory of its own
            return False
    return same and not memory.refused


def _agree(before: nn.Module, after: nn.Module, call: Call, counts: Mapping[str, int]) -> bool:
    expected = _called(before, call)
    seen: Counter[str] = Counter()
    with ExitStack() as hooks:
        for path in counts:
            layer = after.get_submodule(path)
            hooks.enter_context(layer.register_forward_pre_hook(lambda *_, path=path: seen.update([path])))
        try:
            found = _called(after, call)
        except Exception:
            return False
    same = len(expected) == len(found) and all(_alike(a, b) for a, b in zip(expected, found, strict=True))
    return same and seen == dict(counts)


def _called(module: nn.Module, call: Call) -> list[torch.Tensor]:
    """What a network returns."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _as_it_was(module):
        torch.manual_seed(0)
        made = module(*copy.deepcopy(call.args), **copy.deepcopy(call.kwargs))
    return [value for value in tree_leaves(made) if isinstance(value, torch.Tensor)]


def _cut(values: Any) -> Any:
    """Arguments with smaller images."""

    def cut(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.ndim < IMAGE_RANK or value.layout != torch.strided:
            return value
        window = (slice(None), slice(None), *(slice(SMALL) for _ in value.shape[2:]))
        return value[window]

    return tree_map(cut, values)


def _size(call: Call) -> int:
    return sum(value.numel() for value in tree_leaves((call.args, call.kwargs)) if isinstance(value, torch.Tensor))


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Takes what is noted on modules off again."""
    saved = []
    for layer in module.modules():
        held = vars(layer)
        tables = [(value, _copy(value)) for value in held.values() if isinstance(value, dict | list | set)]
        saved.append((held, dict(held), tables))
    try:
        yield
    finally:
        for held, attributes, tables in saved:
            for value, old in [(held, attributes), *tables]:
                value.clear()
                (value.extend if isinstance(value, list) else value.update)(old)


def _copy(value: Any) -> Any:
    """The same things in a plain dict, list or set."""
    return next(kind(value) for kind in (dict, list, set) if isinstance(value, kind))


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point() or not a.numel():
        return True
    agree = AGREE if a.dtype.itemsize > 2 else AGREE_ROUGHLY
    a, b = torch.nan_to_num(a.double()), torch.nan_to_num(b.double())
    return bool((a - b).abs().max() <= agree * a.abs().max().clamp(min=1e-30))
