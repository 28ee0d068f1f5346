"""Graphs made by hand, and what each of their operators computes.

`Net` builds a `bnfold.units.graph.Graph` operator by operator, and keeps what the graph does not say: biases, and a
torch function per operator. Constants are read-only, so that a hidden write fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bnfold.reasons import Reason
from bnfold.units import graph as g
from bnfold.units.affine import Array, Kernel
from bnfold.units.window import Window

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
Parameters = tuple[NDArray[np.generic], "Array | None"]


def frozen(array: object, dtype: type = np.float64) -> NDArray[np.generic]:
    """A read-only copy, so that a hidden write fails."""
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy


def torch_of(array: NDArray[np.generic]) -> torch.Tensor:
    return torch.tensor(np.array(array, dtype=np.float64))


@dataclass
class Net:
    """A graph under construction."""

    seed: int = 0
    precision: int = 24
    ops: list[g.Op] = field(default_factory=list)
    shapes: dict[g.Value, tuple[int, ...]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    biases: dict[str, Array | None] = field(default_factory=dict)
    run_linear: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = field(default_factory=dict)
    run_other: dict[str, Callable[..., torch.Tensor]] = field(default_factory=dict)
    free_batch: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    # what goes in and out

    def input(self, *shape: int) -> str:
        name = f"in{len(self.inputs)}"
        self.inputs.append(name)
        self.shapes[name] = shape
        return name

    def output(self, *values: str) -> Net:
        self.outputs += values
        return self

    def graph(self) -> g.Graph:
        shapes: dict[g.Value, g.Shape] = dict(self.shapes)
        if self.free_batch:
            shapes = {value: ("N", *shape[1:]) for value, shape in shapes.items()}
        return g.Graph(tuple(self.ops), shapes, tuple(self.inputs), tuple(self.outputs), self.precision)

    def name(self, kind: str, name: str | None = None) -> str:
        return name or f"{kind}{len(self.ops)}"

    def put(self, op: g.Op, y: str, shape: Sequence[int], run: Callable[..., torch.Tensor] | None = None) -> str:
        self.ops.append(op)
        self.shapes[y] = tuple(int(size) for size in shape)
        if run is not None:
            self.run_other[op.name] = run
        return y

    def random(self, *shape: int) -> NDArray[np.generic]:
        return frozen(self.rng.standard_normal(shape))

    # operators with weights

    def conv(
        self,
        x: str,
        out: int,
        kernel: int = 1,
        pad: int = 0,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        bias_slot: bool = True,
        transposed: bool = False,
        output_padding: int = 0,
        weight: NDArray[np.generic] | None = None,
        share: str | None = None,
        froze: Reason | None = None,
        name: str | None = None,
    ) -> str:
        """Conv or ConvTranspose over all axes behind the second."""
        name = self.name("conv", name)
        channels, *space = self.shapes[x][1:]
        rank = len(space)
        if weight is None:
            first, second = (channels, out // groups) if transposed else (out, channels // groups)
            weight = self.random(first, second, *(kernel,) * rank)
        taps = weight.shape[2:]
        window = Window(
            taps,
            (stride,) * rank,
            (dilation,) * rank,
            (pad,) * rank,
            (pad,) * rank,
            tuple(space),
            transposed,
            (output_padding,) * rank if transposed else (),
        )
        held = weight
        made = Kernel(
            lambda: held,
            held.shape,
            out_axis=1 if transposed else 0,
            in_axis=0 if transposed else 1,
            groups=groups,
            groups_on_input=transposed,
            reference=tuple(p[0] for p in window.patterns()),
        )

        def run(value: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            if transposed:
                return CONV_TRANSPOSE[rank](value, w, None, stride, pad, output_padding, groups, dilation)
            return CONV[rank](value, w, None, stride, pad, dilation, groups)

        self.biases[name] = self.random(out) if bias else None
        self.run_linear[name] = run
        shape = run(torch.zeros(self.shapes[x], dtype=torch.float64), torch_of(held)).shape
        op = g.Linear(name, x, f"{name}:y", 1, 1, made, share or name, window, bias, bias_slot, froze)
        return self.put(op, f"{name}:y", shape)

    def linear(
        self, x: str, out: int, *, axis: int = -1, bias: bool = True, flipped: bool = False, gain: float = 1.0
    ) -> str:
        """Gemm or MatMul by a constant: one axis is contracted, its place is taken by the result's."""
        name = self.name("linear")
        at = axis % len(self.shapes[x])
        inner = self.shapes[x][at]
        weight = self.random(out, inner) if flipped else self.random(inner, out)
        kernel = Kernel(
            lambda: weight, weight.shape, out_axis=0 if flipped else 1, in_axis=1 if flipped else 0, gain=gain
        )

        def run(value: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            matrix = w.T if flipped else w
            return gain * torch.movedim(torch.movedim(value, at, -1) @ matrix, -1, at)

        self.biases[name] = self.random(out) if bias else None
        self.run_linear[name] = run
        shape = [out if i == at else size for i, size in enumerate(self.shapes[x])]
        op = g.Linear(name, x, f"{name}:y", at, at, kernel, name, None, bias, True)
        return self.put(op, f"{name}:y", shape)

    def table(self, x: str, rows: int, channels: int) -> str:
        """`table[i]` for the rounded absolute values of x as indices: `[*x, channels]`."""
        name = self.name("table")
        stored = self.random(rows, channels)
        self.ops.append(g.Rigid(f"{name}:index", (x,), (f"{name}:i",), Reason.BOUNDARY))
        self.shapes[f"{name}:i"] = self.shapes[x]
        self.run_other[f"{name}:index"] = lambda value: value.abs().round().clamp(max=rows - 1)
        self.run_other[name] = lambda index, unit: torch_of(stored * unit.inverse_scale + unit.inverse_shift)[
            index.long()
        ]
        op = g.Table(name, f"{name}:y", len(self.shapes[x]), channels, name)
        return self.put(op, f"{name}:y", (*self.shapes[x], channels))

    # constant affines

    def affine(
        self,
        x: str,
        scale: object,
        shift: object = 0.0,
        *,
        norm: bool = False,
        sigma: object = None,
        name: str | None = None,
        kind: str = "Mul",
    ) -> str:
        """`scale·x + shift`, both broadcastable."""
        name = self.name("affine", name)
        s, t = np.asarray(scale, dtype=np.float64), np.asarray(shift, dtype=np.float64)
        spread = None if sigma is None else frozen(sigma)
        op = g.Affine(name, x, f"{name}:y", frozen(s), frozen(t), norm, spread, kind)
        shape = np.broadcast_shapes(self.shapes[x], s.shape, t.shape)
        return self.put(op, f"{name}:y", shape)

    def bn(
        self,
        x: str,
        scale: object = None,
        shift: object = None,
        *,
        sigma: object = None,
        name: str | None = None,
    ) -> str:
        """A BatchNormalization, given by what it does."""
        channels, rank = self.shapes[x][1], len(self.shapes[x])
        s = self.rng.uniform(0.5, 2.0, channels) if scale is None else np.broadcast_to(scale, channels)
        t = self.rng.standard_normal(channels) if shift is None else np.broadcast_to(shift, channels)
        column = (1, channels) + (1,) * (rank - 2)
        spread = None if sigma is None else np.broadcast_to(sigma, channels).reshape(column)
        return self.affine(
            x,
            np.reshape(s, column),
            np.reshape(t, column),
            norm=True,
            sigma=spread,
            name=self.name("bn", name),
            kind="BatchNormalization",
        )

    # operators without weights

    def relu(self, x: str) -> str:
        name = self.name("relu")
        return self.put(g.Homogeneous(name, x, f"{name}:y", True), f"{name}:y", self.shapes[x], F.relu)

    def leaky(self, x: str) -> str:
        name = self.name("leaky")
        return self.put(g.Homogeneous(name, x, f"{name}:y"), f"{name}:y", self.shapes[x], F.leaky_relu)

    def tanh(self, x: str, reason: Reason = Reason.NONLINEAR) -> str:
        name = self.name("tanh")
        return self.put(g.Rigid(name, (x,), (f"{name}:y",), reason), f"{name}:y", self.shapes[x], torch.tanh)

    def add(self, a: str, b: str, sign: float = 1.0) -> str:
        name = self.name("add")
        shape = np.broadcast_shapes(self.shapes[a], self.shapes[b])
        return self.put(g.Add(name, a, b, f"{name}:y", sign), f"{name}:y", shape, lambda p, q: p + sign * q)

    def gate(self, a: str, b: str, division: bool = False) -> str:
        name = self.name("gate")
        shape = np.broadcast_shapes(self.shapes[a], self.shapes[b])
        run = torch.div if division else torch.mul
        return self.put(g.Gate(name, a, b, f"{name}:y", division), f"{name}:y", shape, run)

    def maximum(self, *xs: str, constants: Sequence[NDArray[np.generic]] = ()) -> str:
        name = self.name("max")
        arrays = [self.shapes[x] for x in xs] + [c.shape for c in constants]
        op = g.Select(name, xs, f"{name}:y", tuple(constants))
        return self.put(op, f"{name}:y", np.broadcast_shapes(*arrays), _maximum)

    def max_pool(self, x: str, kernel: int = 2) -> str:
        name = self.name("pool")
        shape = [*self.shapes[x][:2], *(size // kernel for size in self.shapes[x][2:])]
        op = g.Spatial(name, x, f"{name}:y", positive=True)
        return self.put(op, f"{name}:y", shape, lambda v: F.max_pool2d(v, kernel))

    def average(self, x: str, kernel: int = 2, pad: int = 0, counted: bool = False) -> str:
        name = self.name("average")
        run = lambda v: F.avg_pool2d(v, kernel, kernel, pad, count_include_pad=counted)  # noqa: E731
        shape = run(torch.zeros(self.shapes[x], dtype=torch.float64)).shape
        return self.put(g.Spatial(name, x, f"{name}:y", unit_sum=not (pad and counted)), f"{name}:y", shape, run)

    def mean(self, x: str) -> str:
        """The mean over space, axes dropped."""
        name = self.name("mean")
        dims = tuple(range(2, len(self.shapes[x])))
        op = g.Spatial(name, x, f"{name}:y", axes=dims, shape_axes=(0, 1))
        return self.put(op, f"{name}:y", self.shapes[x][:2], lambda v: v.mean(dims))

    def mean_gate(self, x: str) -> str:
        """Squeeze: a small value, one per channel."""
        return self.conv(self.average(x, self.shapes[x][2]), self.shapes[x][1])

    def reshape(self, x: str, *shape: int) -> str:
        name = self.name("reshape")
        return self.put(g.Reshape(name, x, f"{name}:y"), f"{name}:y", shape, lambda v: v.reshape(shape))

    def transpose(self, x: str, *perm: int) -> str:
        name = self.name("transpose")
        shape = [self.shapes[x][i] for i in perm]
        return self.put(g.Transpose(name, x, f"{name}:y", perm), f"{name}:y", shape, lambda v: v.permute(perm))

    def expand(self, x: str, *shape: int) -> str:
        name = self.name("expand")
        return self.put(g.Expand(name, x, f"{name}:y"), f"{name}:y", shape, lambda v: v.expand(shape))

    def concat(self, *xs: str | NDArray[np.generic], axis: int = 1) -> str:
        name = self.name("concat")
        values = tuple(x if isinstance(x, str) else None for x in xs)
        constants = {i: x for i, x in enumerate(xs) if not isinstance(x, str)}
        sizes = [(self.shapes[x] if isinstance(x, str) else x.shape) for x in xs]
        shape = [sum(s[axis] for s in sizes) if i == axis else size for i, size in enumerate(sizes[0])]
        op = g.Concat(name, values, f"{name}:y", axis, constants)
        return self.put(op, f"{name}:y", shape, lambda *parts: torch.cat(parts, axis))

    def take(self, x: str, index: Sequence[int], axis: int = 1) -> str:
        name = self.name("take")
        where = frozen(index, np.int64)
        shape = [len(index) if i == axis else size for i, size in enumerate(self.shapes[x])]
        op = g.Take(name, x, f"{name}:y", axis, where)
        return self.put(op, f"{name}:y", shape, lambda v: v.index_select(axis, torch.tensor(list(index))))

    def zero_pad(self, x: str, before: Sequence[int], after: Sequence[int]) -> str:
        name = self.name("pad")
        shape = [b + size + a for b, size, a in zip(before, self.shapes[x], after, strict=True)]
        flat = [n for pair in reversed(list(zip(before, after, strict=True))) for n in pair]
        op = g.ZeroPad(name, x, f"{name}:y", tuple(before), tuple(after))
        return self.put(op, f"{name}:y", shape, lambda v: F.pad(v, flat))

    def mix(self, a: str, b: str, softmax: bool = False) -> str:
        name = self.name("mix")
        shape = (torch.zeros(self.shapes[a]) @ torch.zeros(self.shapes[b])).shape
        return self.put(g.Mix(name, a, b, f"{name}:y", softmax), f"{name}:y", shape, torch.matmul)

    def softmax(self, x: str) -> str:
        name = self.name("softmax")
        op = g.Rigid(name, (x,), (f"{name}:y",), Reason.NONLINEAR)
        return self.put(op, f"{name}:y", self.shapes[x], lambda v: v.softmax(-1))

    def feeds(self, seed: int = 1) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(seed)
        return {name: torch.tensor(rng.standard_normal(self.shapes[name])) for name in self.inputs}


def _maximum(*values: torch.Tensor) -> torch.Tensor:
    result = values[0]
    for value in values[1:]:
        result = torch.maximum(result, value)
    return result
