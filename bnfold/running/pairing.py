"""Two models whose inputs and outputs are called differently: what goes with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from bnfold.running.runners import Runner
from bnfold.running.subjects import Subject, TorchSubject


class Renamed:
    """The model after by the names of the model before, for pairs whose names say nothing (`go_by_place`).

    What is called the same is taken by name, else all of it by its place.

    Args:
        runner: The model after.
        names: What the model before calls its inputs.
    """

    def __init__(self, runner: Runner, names: Sequence[str]) -> None:
        self.name, self._runner = runner.name, runner
        self._inputs = dict(zip(names, paired(names, list(runner.inputs)), strict=True))
        self.inputs = {ours: runner.inputs[theirs] for ours, theirs in self._inputs.items()}
        self.input_names = tuple(self.inputs)
        self.outputs = None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One inference; the outputs by their own names."""
        return self._runner.run(self._renamed(feeds))

    def prepared(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
        """A function that does one inference on these arrays."""
        return self._runner.prepared(self._renamed(feeds))

    def _renamed(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {self._inputs[name]: array for name, array in feeds.items()}


def go_by_place(before: Subject, after: Subject) -> bool:
    """Whether the names of two models say nothing: they are of two kinds, or one is a module, called as `*args`."""
    return before.kind != after.kind or any(s.network.fixed for s in (before, after) if isinstance(s, TorchSubject))


def paired(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Their names in our order: the same ones where all are the same, else by place; both are as many."""
    return list(ours) if set(ours) == set(theirs) else list(theirs)
