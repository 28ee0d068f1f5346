"""The graph the solver sees: a list of operators of a dozen kinds, in topological order.

BatchNorm does not exist here: it, and Mul, Add, Sub and Div by per-channel constants, are all `Affine`; Conv,
ConvTranspose, Gemm and MatMul by a constant are all `Linear`. A front end translates native operators into these kinds
and later reads from the solution which units each native operator got. A value is any hashable key that is unique in
the front end.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.reasons import Reason
from bnfold.units.affine import Array, Kernel
from bnfold.units.window import Window

Value = Hashable
Shape = tuple["int | str | None", ...]


@dataclass(frozen=True)
class Op:
    """Any operator.

    Attributes:
        name: Unique in the graph.
    """

    name: str


@dataclass(frozen=True)
class Linear(Op):
    """`y = W·x + b` along one axis, with constant weights.

    Attributes:
        x: Input value.
        y: Output value; None for a recurrent input, whose result is rigid.
        x_axis: The input's axis that `W` contracts.
        y_axis: The output's channel axis.
        kernel: The weights.
        weight: Identity of the stored weight: operators with the same one share it.
        window: How it slides; None where it does not (Gemm, MatMul).
        has_bias: Whether a bias is there already.
        bias_slot: Whether a bias can be added without another operator.
        frozen: Why the weight must stay as it is, if it must.
    """

    x: Value
    y: Value
    x_axis: int
    y_axis: int
    kernel: Kernel
    weight: Hashable
    window: Window | None = None
    has_bias: bool = False
    bias_slot: bool = True
    frozen: Reason | None = None


@dataclass(frozen=True)
class Recurrent(Op):
    """A reader with constant input weights and a rigid result: LSTM, GRU, RNN.

    Attributes:
        x: Input value.
        x_axis: Its channel axis.
        ys: Results.
        weight: Identity of the stored input weight.
        features: Number of input channels.
        frozen: Why the weight must stay as it is, if it must.
    """

    x: Value
    x_axis: int
    ys: tuple[Value, ...]
    weight: Hashable
    features: int
    frozen: Reason | None = None


@dataclass(frozen=True)
class Affine(Op):
    """`y = scale·x + shift`, both constant.

    Attributes:
        x: Input value.
        y: Output value.
        scale: float64, broadcastable against the output.
        shift: float64, broadcastable against the output.
        batch_norm: Whether it is a BatchNormalization.
        spread: float64[C], standard deviation of the input as the BatchNorm knows it; None where it does not.
        kind: The native operator, for reports.
        within: Whether it is part of an operator that stays without it: the scale and bias of a LayerNormalization.
    """

    x: Value
    y: Value
    scale: Array
    shift: Array
    batch_norm: bool = False
    spread: Array | None = None
    kind: str = "BatchNormalization"
    within: bool = False


@dataclass(frozen=True)
class Offset(Op):
    """`y = sign·x + C` with a constant `C` that varies by position, so that it can take up any shift."""

    x: Value
    y: Value
    sign: float
    constant: NDArray[Any]


@dataclass(frozen=True)
class Table(Op):
    """A constant that is looked up (Embedding, Gather of a constant table): its unit is free along one axis."""

    y: Value
    y_axis: int
    channels: int
    weight: Hashable


@dataclass(frozen=True)
class Homogeneous(Op):
    """`f(a·x) = a·f(x)` for a > 0: ReLU, LeakyReLU, PReLU, Abs.

    Attributes:
        x: Input value.
        y: Output value.
        clips: Whether it is `max(x, 0)`, which does not tell one negative value from another.
    """

    x: Value
    y: Value
    clips: bool = False


@dataclass(frozen=True)
class Select(Op):
    """An element of one of the operands is passed on: Max, Min, Where; `constants` are operands that can be rewritten.

    Attributes:
        xs: The operands that are not constant.
        y: The result.
        constants: Constant operands.
        positive: Whether the order of the operands matters, so that scales must be positive.
    """

    xs: tuple[Value, ...]
    y: Value
    constants: tuple[NDArray[Any], ...] = ()
    positive: bool = True


@dataclass(frozen=True)
class Spatial(Op):
    """Something along axes other than channels, the same for every channel.

    Attributes:
        x: The feature.
        y: The result.
        axes: The axes of `x` that it works along; None for all but the second (pooling, resize).
        shape_axes: For each axis of the result, the axis of `x` it comes from; None for one to one.
        unit_sum: Whether the weights sum to 1 at every position, so that a shift passes (averages, maxima).
        positive: Whether the scale must be positive (maxima).
        window: How it slides where it is the mean over a window, padded zeros counted; None where it is not.
    """

    x: Value
    y: Value
    axes: tuple[int, ...] | None = None
    shape_axes: tuple[int | None, ...] | None = None
    unit_sum: bool = True
    positive: bool = False
    window: Window | None = None


@dataclass(frozen=True)
class Add(Op):
    """`y = a + sign·b`, neither constant."""

    a: Value
    b: Value
    y: Value
    sign: float = 1.0


@dataclass(frozen=True)
class Gate(Op):
    """`y = a·b` (or `a / b` when `division`), neither constant: one of them is the gate, which is rigid."""

    a: Value
    b: Value
    y: Value
    division: bool = False


@dataclass(frozen=True)
class Mix(Op):
    """A matrix product with a computed matrix that mixes positions of a feature: `softmax(A)·V`.

    Attributes:
        a: First operand.
        b: Second operand.
        y: Result.
        unit_sum: Whether the rows of `a` sum to 1 at every position (a softmax over its last axis).
    """

    a: Value
    b: Value
    y: Value
    unit_sum: bool = False


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in the same order in another shape: Reshape, Flatten, Squeeze, Unsqueeze."""

    x: Value
    y: Value


@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order."""

    x: Value
    y: Value
    perm: tuple[int, ...]


@dataclass(frozen=True)
class Expand(Op):
    """Broadcast to a larger shape."""

    x: Value
    y: Value


@dataclass(frozen=True)
class Concat(Op):
    """Values side by side along one axis; a constant part stands in `constants` by its position.

    Attributes:
        xs: The parts; None where the part is constant.
        y: The result.
        axis: Not negative.
        constants: The constant parts, by position in `xs`.
    """

    xs: tuple[Value | None, ...]
    y: Value
    axis: int
    constants: dict[int, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Take(Op):
    """Some elements along one axis: Slice, Split, Gather. `index` is None when it is not known."""

    x: Value
    y: Value
    axis: int
    index: NDArray[np.int64] | None
    keeps_axis: bool = True


@dataclass(frozen=True)
class ZeroPad(Op):
    """Zeros added at the ends of some axes.

    Attributes:
        x: Input value.
        y: Output value.
        before: Number of zeros before, per axis.
        after: Number of zeros after, per axis.
    """

    x: Value
    y: Value
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Rigid(Op):
    """Anything else: what it reads and writes keeps its unit.

    Attributes:
        xs: What it reads.
        ys: What it writes.
        reason: What the user is told when it stands in the way.
    """

    xs: tuple[Value, ...]
    ys: tuple[Value, ...]
    reason: Reason


@dataclass(frozen=True)
class Graph:
    """A model as the solver sees it.

    Attributes:
        ops: In topological order.
        shapes: Shape of each value, a name or None for a size that is not known; no entry where the rank is not known.
        inputs: Values that come from outside.
        outputs: Values that leave.
        precision: Bits of the significand of the model's dtype (24 for float32), for the conditioning limit.
    """

    ops: tuple[Op, ...]
    shapes: dict[Value, Shape]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    precision: int = 24
