"""What an example of a law is: a graph that it folds, one that it protects, and how the law is made wrong.

A law can be wrong in two ways. Made too weak, it asks for more than it must, and a BatchNorm stays that could go: the
first example notices. Made too generous, it asks for less, and the function changes: the second example notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_case import Case, Folded, check, same_function

from bnfold.frontends.onnx import fold_model
from bnfold.reasons import Reason
from bnfold.units import graph as g
from bnfold.units import laws as module
from bnfold.units.laws import Laws
from bnfold.units.layout import channels_on

Change = Callable[[Laws, Any], None]
Build = Callable[[Case], str]
Op = Callable[[Case, str], str]


# What a law can become


def truly(laws: Laws, op: Any) -> None:
    """The law as it is."""
    Laws.__dict__["apply"].__get__(laws, Laws)(op)


def rigid(laws: Laws, op: Any) -> None:
    """It lets nothing pass."""
    xs = [getattr(op, name) for name in ("x", "a", "b") if hasattr(op, name)]
    xs += [x for x in getattr(op, "xs", ()) if x is not None]
    ys = getattr(op, "ys", None) or (op.y,)
    truly(laws, g.Rigid(op.name, tuple(xs), ys, Reason.NONLINEAR))


def forgetting(*names: str) -> Change:
    """It does not write some of its equations down."""

    def change(laws: Laws, op: Any) -> None:
        before = {name: list(getattr(laws.system, name)) for name in names}
        truly(laws, op)
        for name, kept in before.items():
            held = getattr(laws.system, name)
            if isinstance(held, dict):
                for key in set(held) - set(kept):
                    del held[key]
            else:
                del held[len(kept) :]

    return change


def pinning(laws: Laws, op: Any) -> None:
    """It lets no shift pass."""
    laws.system.pinned.append((laws.tensor(op.x).flat, Reason.NONLINEAR))
    truly(laws, op)


def taking(**fields: Callable[[Any], Any]) -> Change:
    """It takes its operator for a slightly different one."""

    def change(laws: Laws, op: Any) -> None:
        truly(laws, replace(op, **{name: make(op) for name, make in fields.items()}))

    return change


def passing(laws: Laws, op: Any) -> None:
    """It passes its operand's cells on, whatever it does to them."""
    laws.tensors[getattr(op, "y", None) or op.ys[0]] = laws.tensor(op.x if hasattr(op, "x") else op.xs[0])


def releasing(laws: Laws, op: Any) -> None:
    """It does not hold what it reads."""
    for y in op.ys:
        laws.ground(y, op.reason)


def making(axis: int) -> Change:
    """It gives its result units of its own."""

    def change(laws: Laws, op: Any) -> None:
        truly(laws, op)
        y = getattr(op, "y", None) or op.ys[0]
        shape = laws.shape(y)
        laws.tensors[y] = channels_on(laws.system.new((shape[axis],)), shape, axis)  # type: ignore[arg-type]

    return change


# Examples: the result of each goes through a Sigmoid, which keeps its unit


def image(c: Case) -> str:
    return c.input("N", 4, 6, 6)


def scaling(c: Case, x: str, channels: int = 4, **given: Any) -> str:
    """A BatchNorm that does not shift."""
    mean = c.rng.standard_normal(channels)
    gamma, var = given.pop("gamma", c.rng.uniform(0.5, 2, channels)), c.rng.uniform(0.5, 2, channels)
    return c.bn(x, channels, gamma=gamma, var=var, mean=mean, beta=gamma / np.sqrt(var + 1e-5) * mean, **given)


def forward(op_type: str, *operands: Any, shift: bool = True, negative: bool = False, **attributes: Any) -> Build:
    """BatchNorm of the input → operator → Conv without padding, which can take up any unit."""

    def build(c: Case) -> str:
        given = {"gamma": c.mixed(4)} if negative else {}
        x = c.bn(image(c), 4, **given) if shift else scaling(c, image(c), **given)
        constants = [c.const(np.asarray(value)) for value in operands]
        return c.conv(c.op(op_type, x, *constants, **attributes), 3, 4, 1, 1)

    return build


def backward(op: Callable[[Case, str], str]) -> Build:
    """Conv → operator → BatchNorm, which only the Conv can take up."""
    return lambda c: c.bn(op(c, c.conv(image(c), 4, 4, 1, 1)), 4)


@dataclass(frozen=True)
class Example:
    """A law, what it may become, and what notices.

    Attributes:
        kind: The operators that the law is about.
        weak: The law asking for more than it must; None where it could not ask for more.
        folds: What it folds and the weak law does not.
        generous: The law asking for less than it must.
        protects: What it keeps right and the generous law does not.
    """

    kind: type
    weak: Change | None
    folds: Build | None
    generous: Change
    protects: Build


@contextmanager
def instead(kind: type, change: Change) -> Iterator[None]:
    """Another law for one kind of operator."""

    class Changed(Laws):
        def apply(self, op: Any) -> None:  # type: ignore[override]
            if type(op) is kind:
                change(self, op)
            else:
                super().apply(op)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Laws", Changed)
        yield


def model(build: Build, outputs: Callable[[Case, str], str] = lambda c, y: c.op("Sigmoid", y)) -> onnx.ModelProto:
    c = Case()
    return c.model(outputs(c, build(c)))


def folded_as_it_comes(proto: onnx.ModelProto) -> Folded:
    """A fold without any check."""
    after, plan = fold_model(ir.from_proto(proto))
    return Folded(proto, ir.to_proto(after), plan)


def folds(example: Example) -> None:
    """The law folds what a weaker one would keep."""
    assert example.weak is not None
    assert example.folds is not None
    proto = model(example.folds)
    check(proto)
    with instead(example.kind, example.weak):
        kept = folded_as_it_comes(proto)
    assert kept.plan.folded == 0, "the weaker law folds it as well"
    same_function(kept)


def protects(example: Example) -> None:
    """The law protects what a more generous one would break."""
    proto = model(example.protects)
    same_function(folded_as_it_comes(proto))
    with instead(example.kind, example.generous):
        broken = folded_as_it_comes(proto)
    with pytest.raises(AssertionError):
        same_function(broken)
