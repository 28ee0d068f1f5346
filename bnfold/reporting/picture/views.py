"""A model as something to draw: operators in order, who reads whom, which module made them, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

PART = 24  # operators in a part of a graph that says nothing about its modules
FEW = 40  # operators that need no parts

Path = tuple[str, ...]


@dataclass(frozen=True)
class Weight:
    """The constant weight of a linear operator.

    Attributes:
        read: Its array; called when it is needed, so that one is in memory at a time.
        axis: Which axis of it is that of the output channels.
        bias: The array of the bias; None where there is none, or where it is not constant.
    """

    read: Callable[[], NDArray[Any]]
    axis: int
    bias: Callable[[], NDArray[Any]] | None = None


@dataclass(frozen=True)
class Operator:
    """One operator, or an input or output of the graph.

    Attributes:
        name: Its unique name, that of the plan's sites.
        op: Its type; `"Input"` and `"Output"` stand for the graph's own.
        reads: Which operators it reads, by their place in the view.
        path: The module it belongs to, outermost first; empty where the model does not say.
        shape: Of its first result, like `"N×64×7×7"`; empty where it is not known.
        weight: What it multiplies by, for linear operators.
        value: The name of its first result.
    """

    name: str
    op: str
    reads: tuple[int, ...] = ()
    path: Path = ()
    shape: str = ""
    weight: Weight | None = None
    value: str = ""


@dataclass(frozen=True)
class View:
    """A graph: an operator stands after those that it reads, except where bodies of control flow are read back."""

    operators: tuple[Operator, ...]


def shape_text(sizes: Sequence[object] | None) -> str:
    """`(1, "batch", 3)` as `1×batch×3`; a size without a name is `?`."""
    return "" if sizes is None else "×".join("?" if size is None else str(size) for size in sizes)


def in_modules(operators: Sequence[Operator]) -> View:
    """The view in which operators that do not say to which module they belong go with the one they read.

    A graph that says nothing at all is cut into parts of equal length, if it is long.
    """
    if any(operator.path for operator in operators):
        return View(_inherited(operators))
    drawn = [operator for operator in operators if operator.op not in ("Input", "Output")]
    if len(drawn) <= FEW:
        return View(tuple(operators))
    part = {operator.name: f"part {index // PART + 1}" for index, operator in enumerate(drawn)}
    return View(tuple(replace(op, path=(part[op.name],)) if op.name in part else op for op in operators))


def _inherited(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    done: list[Operator] = []
    for operator in operators:
        if not operator.path and operator.op not in ("Input", "Output"):
            above = next((done[at] for at in operator.reads if at < len(done) and done[at].path), None)
            operator = operator if above is None else replace(operator, path=_around(above))
        done.append(operator)
    return tuple(done)


def _around(operator: Operator) -> Path:
    """The module an operator's result is used in: a convolution or BatchNorm is all there is of its own."""
    alone = operator.weight is not None or operator.op == "BatchNormalization"
    return operator.path[:-1] if alone else operator.path
