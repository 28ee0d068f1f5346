"""A graph as a short list of steps, and a builder that evaluates every step as it adds it (so shapes come for free).

A tensor is a name. Its first axis is the batch; `Spec.axes` says which axis holds its channels (1 for images and
features, 2 for tokens float64[N, L, C]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import naive
from .naive import Array

BATCH = 2


@dataclass(frozen=True, repr=False)
class Step:
    """One operator call: what it reads and writes, its attributes, and its constant operands."""

    op: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    consts: Mapping[str, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        told = [f"{key}={value}" for key, value in self.attrs.items()]
        if self.op == "bn":
            scale, shift = naive.affine_of(self)
            told = [f"s={_numbers(scale)}", f"t={_numbers(shift)}"]
        elif self.op == "const":
            told.append(f"value={_numbers(self.consts['value'])}")
        else:
            told += [f"{key}[{','.join(map(str, value.shape))}]" for key, value in self.consts.items()]
        return f"{', '.join(self.writes)} = {self.op}({', '.join(self.reads)}) {' '.join(told)}".rstrip()


@dataclass(frozen=True, repr=False)
class Spec:
    """A whole graph.

    Attributes:
        inputs: Names of the graph inputs.
        steps: The operators, in order.
        outputs: Names of the graph outputs.
        feeds: The inputs it was built with, float64[BATCH, ...] each.
        values: What every tensor is for these inputs.
        axes: The channel axis of every tensor.
        shared: `(step, constant, owner step)`: this constant is the owner's initializer.
        overridable: `(step, constant)`: this initializer is a graph input as well.
        options: How the model is written: opset, static_batch, value_info.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    feeds: Mapping[str, Array]
    values: Mapping[str, Array]
    axes: Mapping[str, int]
    shared: tuple[tuple[int, str, int], ...] = ()
    overridable: tuple[tuple[int, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch_norms(self) -> tuple[int, ...]:
        """Indices of the BatchNormalization steps."""
        return tuple(index for index, step in enumerate(self.steps) if step.op == "bn")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What Hypothesis prints of a failing graph."""
        printer.text("\n" + repr(self))

    def __repr__(self) -> str:
        lines = [f"{name} = input{list(self.values[name].shape)}" for name in self.inputs]
        lines += [f"{step}   -> {[list(self.values[w].shape) for w in step.writes]}" for step in self.steps]
        lines.append(f"outputs {', '.join(self.outputs)}")
        lines += [f"shared {self.shared}"] if self.shared else []
        lines += [f"overridable {self.overridable}"] if self.overridable else []
        lines += [f"options {dict(self.options)}"] if self.options else []
        return "\n".join(lines)


def _numbers(array: Array) -> str:
    return "[" + " ".join(f"{value:.3g}" for value in np.ravel(array)) + "]"


class Builder:
    """Adds steps to a graph, drawing every constant from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.inputs: list[str] = []
        self.steps: list[Step] = []
        self.feeds: dict[str, Array] = {}
        self.values: dict[str, Array] = {}
        self.axes: dict[str, int] = {}
        self.shared: list[tuple[int, str, int]] = []

    def _share(self, key: str, other: int) -> None:
        """This constant of the step to come is the initializer of an earlier step."""
        owner = next((of for index, name, of in self.shared if (index, name) == (other, key)), other)
        self.shared.append((len(self.steps), key, owner))

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, len(self.steps)))

    def input(self, *shape: int) -> str:
        """A graph input float64[BATCH, *shape]."""
        name = f"x{len(self.inputs)}"
        rng = np.random.default_rng((self.seed, 1_000_000 + len(self.inputs)))
        self.inputs.append(name)
        self.feeds[name] = self.values[name] = rng.normal(size=(BATCH, *shape))
        self.axes[name] = 1
        return name

    def add_step(
        self,
        op: str,
        *reads: str,
        consts: Mapping[str, Array] | None = None,
        channel_axis: int | None = None,
        parts: int = 1,
        **attrs: Any,
    ) -> tuple[str, ...]:
        """Any step, evaluated at once; returns the names it writes."""
        start = sum(len(step.writes) for step in self.steps)
        step = Step(op, reads, tuple(f"t{start + part}" for part in range(parts)), attrs, dict(consts or {}))
        for name, value in zip(step.writes, naive.step(step, [self.values[name] for name in reads]), strict=True):
            self.values[name] = value
            self.axes[name] = self.axes[reads[0]] if channel_axis is None else channel_axis
        self.steps.append(step)
        return step.writes

    def channels(self, x: str) -> int:
        """Length of a tensor's channel axis."""
        return int(self.values[x].shape[self.axes[x]])

    def shape(self, x: str) -> tuple[int, ...]:
        """A tensor's shape without the batch."""
        return tuple(self.values[x].shape[1:])

    # Linear, constant weight

    def conv(
        self,
        x: str,
        out: int | None = None,
        kernel: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        strides: tuple[int, int] = (1, 1),
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
        bias: bool = True,
        share: int | None = None,
    ) -> str:
        """Conv; `share` names an earlier conv step of the same weight shape, whose weight this one uses."""
        rng, c = self._rng(), self.channels(x)
        weight = _spread(rng, (out or c, c // groups, *kernel))
        if share is not None:
            weight = self.steps[share].consts["weight"]
            self._share("weight", share)
        consts = {"weight": weight, **({"bias": rng.normal(size=len(weight))} if bias else {})}
        geometry = {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}
        return self.add_step("conv", x, consts=consts, **geometry, groups=groups)[0]

    def conv_transpose(
        self,
        x: str,
        out: int | None = None,
        kernel: tuple[int, int] = (2, 2),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        strides: tuple[int, int] = (1, 1),
        output_padding: tuple[int, int] = (0, 0),
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        """ConvTranspose."""
        rng, c = self._rng(), self.channels(x)
        weight = _spread(rng, (c, (out or c) // groups, *kernel))
        consts = {"weight": weight, **({"bias": rng.normal(size=out or c)} if bias else {})}
        geometry = {"kernel": kernel, "strides": strides, "pads": pads, "output_padding": output_padding}
        return self.add_step("conv_transpose", x, consts=consts, **geometry, groups=groups)[0]

    def gemm(
        self,
        x: str,
        out: int = 3,
        alpha: float = 1.0,
        beta: float = 1.0,
        trans_b: bool = True,
        bias: tuple[int, ...] | None = (-1,),
    ) -> str:
        """Gemm; `bias` is the bias's shape, with -1 for the number of outputs."""
        rng, features = self._rng(), self.values[x].shape[1]
        consts = {"weight": _spread(rng, (out, features) if trans_b else (features, out))}
        if bias is not None:
            consts["bias"] = rng.normal(size=tuple(out if size == -1 else size for size in bias))
        return self.add_step("gemm", x, consts=consts, alpha=alpha, beta=beta, transB=trans_b)[0]

    def matmul(self, x: str, out: int = 3, share: int | None = None) -> str:
        """MatMul by a constant on the last axis; `share` names an earlier one, whose weight this one uses."""
        weight = _spread(self._rng(), (self.values[x].shape[-1], out))
        if share is not None:
            weight = self.steps[share].consts["weight"]
            self._share("weight", share)
        return self.add_step("matmul", x, consts={"weight": weight})[0]

    # Affine

    def bn(self, x: str, kind: str = "positive", like: int | None = None) -> str:
        """BatchNormalization.

        Args:
            x: What it reads.
            kind: "positive", "mixed", "negative" (gammas), "zero" (some gammas), "dead" and "stuck" (the first channel
                has gamma 0 and t < 0, or t > 0), "tiny" (gamma 1e-8 there), "uniform" (over channels), "scale_only"
                (t = 0), "shift_only" (s = 1), "identity"; relative to the BN step `like`: "copy", "shared" (its
                initializers), "same_scale" (other t), "same_zero" (the same t/s), "inverse".
            like: An earlier BN step of as many channels, for the relative kinds.
        """
        rng, c = self._rng(), self.values[x].shape[1]
        consts = {
            "gamma": rng.uniform(0.7, 1.4, c),
            "beta": rng.normal(size=c) * 0.5,
            "mean": rng.normal(size=c) * 0.5,
            "var": rng.uniform(0.7, 1.4, c),
        }
        epsilon = float(np.float32(rng.choice([1e-5, 1e-3, 0.1])))  # the attribute is a float32
        root = np.sqrt(consts["var"] + epsilon)
        if kind == "mixed":
            signs = rng.choice([-1.0, 1.0], c)
            signs[rng.integers(c)] = -1.0
            consts["gamma"] *= signs
        elif kind == "negative":
            consts["gamma"] *= -1.0
        elif kind == "zero":
            consts["gamma"][rng.integers(c)] = 0.0
            consts["gamma"] *= rng.choice([0.0, 1.0, 1.0, 1.0], c)
        elif kind in ("dead", "stuck", "tiny"):
            consts["gamma"][0] = 1e-8 if kind == "tiny" else 0.0
            consts["beta"][0] = -0.5 if kind == "dead" else 0.5
        elif kind == "uniform":
            consts = {key: np.full(c, value[0]) for key, value in consts.items()}
        elif kind in ("shift_only", "identity"):
            consts["gamma"] = root
        if kind in ("scale_only", "identity", "same_zero", "inverse"):
            consts["mean"] = np.zeros(c)  # else t = beta - s*mean is rounding where it should be 0
        if kind in ("scale_only", "identity"):
            consts["beta"] = np.zeros(c)
        if like is not None:
            other = self.steps[like]
            s, t = naive.affine_of(other)
            if kind in ("copy", "shared"):
                consts, epsilon = {key: value.copy() for key, value in other.consts.items()}, other.attrs["epsilon"]
            elif kind == "same_scale":
                consts["gamma"], consts["var"], epsilon = (
                    other.consts["gamma"],
                    other.consts["var"],
                    other.attrs["epsilon"],
                )
            elif kind == "same_zero":
                consts["beta"] = consts["gamma"] / root * (t / s)
            elif kind == "inverse":
                consts["gamma"] = root / s
                consts["beta"] = -t / s
            if kind == "shared":
                for key in consts:
                    self._share(key, like)
        return self.add_step("bn", x, consts=consts, epsilon=epsilon)[0]

    def const(self, x: str, kind: str, form: str = "channel", reverse: bool = False, positive: bool = True) -> str:
        """Mul, Add, Sub or Div by a per-channel ("channel", "channel1" with a leading 1) or "scalar" constant."""
        rng, axis, rank = self._rng(), self.axes[x], self.values[x].ndim
        shape = (self.channels(x), *(1,) * (rank - 1 - axis))
        if form == "scalar":
            shape = () if rng.integers(2) else (1,)
        elif form == "channel1":
            shape = (*(1,) * (rank - len(shape)), *shape)
        value = rng.uniform(0.7, 1.4, shape)
        if not positive:
            value = value * rng.choice([-1.0, 1.0], shape)
        return self.add_step("const", x, consts={"value": np.asarray(value)}, kind=kind, reverse=reverse)[0]

    def table(self, x: str, kind: str = "add", reverse: bool = False) -> str:
        """Add or Sub of a constant of the tensor's whole shape (a position embedding)."""
        value = self._rng().normal(size=(1, *self.shape(x)))
        return self.add_step("table", x, consts={"value": value}, kind=kind, reverse=reverse)[0]

    # Everything else

    def op(self, op: str, *reads: str, **attrs: Any) -> str:
        """A step without constants and with one output: relu, abs, add, sub, max, gate, flatten, identity, …."""
        return self.add_step(op, *reads, **attrs)[0]

    def prelu(self, x: str, scalar: bool = False) -> str:
        """PRelu, with slopes of either sign."""
        shape = (1,) if scalar else (self.channels(x), *(1,) * (self.values[x].ndim - 1 - self.axes[x]))
        return self.add_step("prelu", x, consts={"slope": self._rng().normal(size=shape) * 0.5})[0]

    def pool(
        self,
        x: str,
        op: str = "max_pool",
        kernel: tuple[int, int] = (2, 2),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        strides: tuple[int, int] = (1, 1),
        count_include_pad: bool = False,
    ) -> str:
        """MaxPool or AveragePool."""
        attrs: dict[str, Any] = {"kernel": kernel, "strides": strides, "pads": pads}
        if op == "average_pool":
            attrs["count_include_pad"] = count_include_pad
        return self.add_step(op, x, **attrs)[0]

    def concat(self, *xs: str, axis: int | None = None, constant: int = 0) -> str:
        """Concat on the channel axis (or another), with `constant` more channels that are a constant."""
        axis = self.axes[xs[0]] if axis is None else axis
        consts = {}
        if constant:
            shape = (BATCH, *self.shape(xs[0]))
            value = np.broadcast_to(self._rng().normal(size=(constant, *shape[2:])), (BATCH, constant, *shape[2:]))
            consts["value"] = np.ascontiguousarray(value)
        return self.add_step("concat", *xs, consts=consts, axis=axis)[0]

    def split(self, x: str, sizes: Sequence[int], axis: int = 1) -> tuple[str, ...]:
        """Split along an axis."""
        return self.add_step("split", x, parts=len(sizes), sizes=tuple(sizes), axis=axis)

    def tokens(self, x: str) -> str:
        """An image float64[N, C, H, W] as tokens float64[N, H*W, C]."""
        n = (-1, self.channels(x), int(np.prod(self.shape(x)[1:])))
        return self.op("transpose", self.op("reshape", x, shape=n), perm=(0, 2, 1), channel_axis=2)

    def rows(self, x: str) -> str:
        """Tokens float64[N, L, C] as features float64[N*L, C]."""
        return self.op("reshape", x, shape=(-1, self.shape(x)[-1]), channel_axis=1)

    def finish(self, *outputs: str, overridable: Sequence[tuple[int, str]] = (), **options: Any) -> Spec:
        """The graph, with these outputs (by default every tensor that nothing reads)."""
        read = {name for step in self.steps for name in step.reads}
        leaves = [name for step in self.steps for name in step.writes if name not in read]
        return Spec(
            inputs=tuple(self.inputs),
            steps=tuple(self.steps),
            outputs=tuple(outputs or leaves),
            feeds=self.feeds,
            values=self.values,
            axes=self.axes,
            shared=tuple(self.shared),
            overridable=tuple(overridable),
            options=options,
        )


def _spread(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Generic weights of about unit gain."""
    return np.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape) / shape[0]) + 0.1)
