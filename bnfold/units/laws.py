"""What each kind of operator says about units: one function per kind (the table of laws stands in docs/folding.md).

A law reads the layouts of its operands, gives its result a layout, and writes equations into the system. Operators that
carry channels unchanged write none: their result has the cells of their input. So ReLU is "the same cells, positive and
without shift", an average is "the same cells", and only Linear, Affine, Add and constants make new ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.graph import (
    Add,
    Affine,
    Concat,
    Expand,
    Gate,
    Graph,
    Homogeneous,
    Linear,
    Mix,
    Offset,
    Op,
    Recurrent,
    Reshape,
    Rigid,
    Select,
    Shape,
    Spatial,
    Table,
    Take,
    Transpose,
    Value,
    ZeroPad,
)
from bnfold.units.layout import (
    Axis,
    Cells,
    Factor,
    Tensor,
    along,
    channels_on,
    collapse,
    common_axes,
    full_axis,
    ravel,
    reshape,
    spread,
    tidy,
    transpose,
    uniform,
)
from bnfold.units.system import GROUND, Candidate, Row, System, Tie, ground
from bnfold.units.window import Mask, Window

NO_CELLS: Cells = np.zeros(0, dtype=np.int64)
LARGEST_OUTER = 1 << 12  # channels of a sum of channels on different axes (position logits), each with its own unit
LARGEST_OFFSET = 1 << 20  # elements of a constant that may have units of their own


def read_laws(graph: Graph) -> System:
    """Write down what every operator of a graph says about units."""
    laws = Laws(graph)
    for op in graph.ops:
        laws.apply(op)
    for value in graph.outputs:
        laws.system.hold(laws.tensor(value).cells, Reason.IO)
    for uses in laws.system.shared.values():
        laws.tie_uses(uses)
    return laws.system


class Laws:
    """The laws, and the layout of every value seen so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.system = System()
        self.tensors: dict[Value, Tensor] = {}
        self.relu_only = _read_by_relu_only(graph)
        self.constant: dict[Value, Cells] = {}  # channels that are a positive constant
        for value in graph.inputs:
            self.ground(value, Reason.IO)

    def shape(self, value: Value) -> Shape:
        """The shape of a value, empty where its rank is unknown."""
        return self.graph.shapes.get(value, ())

    def tensor(self, value: Value) -> Tensor:
        """The layout of a value; what nothing produced is a boundary."""
        if value not in self.tensors:
            self.ground(value, Reason.BOUNDARY)
        return self.tensors[value]

    def ground(self, value: Value, reason: Reason) -> None:
        """A value keeps its unit."""
        self.tensors[value] = uniform(ground(reason), self.shape(value))

    def hold(self, *values: Value, reason: Reason) -> None:
        """Values that were made before keep their unit."""
        for value in values:
            self.system.hold(self.tensor(value).cells, reason)

    def tie(self, pairs: Sequence[tuple[Cells, Cells]]) -> None:
        """Cells that a layout had to make uniform."""
        for a, b in pairs:
            self.system.same(a, b)

    def tie_uses(self, uses: list[tuple[Cells, Cells]]) -> None:
        """Operators that share one weight: `W·S_in / S_out` is the same for all if their scales are."""
        (first_x, first_y), *others = uses
        for x, y in others:
            for a, b in ((first_x, x), (first_y, y)):
                if a.shape == b.shape and a.size:
                    self.system.ties.append(Tie(a, b, shared=True))
                else:
                    self.system.rigid += [(a, Reason.SHARED_WEIGHT), (b, Reason.SHARED_WEIGHT)]

    def carry(self, op: Op, x: Value, y: Value, tensor: Tensor | None) -> None:
        """Give `y` a layout; where channels cannot be followed, make them all alike."""
        if tensor is None:
            single, pairs = collapse(self.tensor(x), self.tensor(x).channel_axes)
            self.tie(pairs)
            tensor = uniform(int(single.cells), self.shape(y))
        self.tensors[y] = tensor

    def align(self, values: Sequence[Value], y: Value) -> tuple[list[Cells], tuple[Axis, ...]]:
        """The cells of operands that meet elementwise, broadcast to one arrangement, and the axes of the result."""
        tensors = [self.tensor(v) for v in values]
        shape = self.shape(y)
        axes = common_axes(tensors, shape) if all(t.rank <= len(shape) for t in tensors) else None
        if axes is None:
            for i, tensor in enumerate(tensors):
                tensors[i], pairs = collapse(tensor, tensor.channel_axes)
                self.tie(pairs)
            return [t.cells for t in tensors], tuple((Factor(size),) for size in shape)
        return [spread(t, axes) for t in tensors], axes

    def apply(self, op: Op) -> None:
        """Write down what one operator says."""
        law = LAWS.get(type(op))
        if law is None:
            raise TypeError(f"no law for {type(op).__name__}")
        law(self, op)

    def linear(self, op: Linear) -> None:
        """Input and output units are free, unless zeros that pad the input, or a stride, tell a shift from nothing."""
        x = self.tensor(op.x)
        if self._mixes_positions(op, x):
            self.tensors[op.y] = Tensor(x.cells, _with_axis(x.axes, op.x_axis, self.shape(op.y)[op.y_axis]))
            self.system.pinned.append((x.flat, Reason.ZERO_PAD))
            self.system.read.append(x.flat)
            self.system.shared.setdefault(op.weight, []).append((NO_CELLS, NO_CELLS))  # it reads the weight as it is
            return
        cells, pairs = along(x, op.x_axis, op.kernel.in_channels)
        self.tie(pairs)
        blocked = ~shift_passes(op)
        if blocked.any():  # usually all of them, which the blocks know at sight
            self.system.pinned.append((cells if blocked.all() else cells[blocked], Reason.ZERO_PAD))
        out = self.system.new((op.kernel.out_channels,))
        self.system.read.append(cells)
        self.system.made.append(out)
        self.system.views[op.name] = (cells, out)
        self.system.weights[op.name] = math.prod(op.kernel.shape)
        if op.frozen is not None:
            self.system.rigid += [(cells, op.frozen), (out, op.frozen)]
        else:
            self.system.shared.setdefault(op.weight, []).append((cells, out))
        self.tensors[op.y] = channels_on(out, self.shape(op.y), op.y_axis)

    def _mixes_positions(self, op: Linear, x: Tensor) -> bool:
        """Whether it contracts an axis that holds only positions of a tensor that has channels elsewhere."""
        return (
            x.has_channels
            and op.x_axis not in x.channel_axes
            and op.window is None
            and op.x_axis == op.y_axis
            and not op.has_bias
        )

    def recurrent(self, op: Recurrent) -> None:
        """The input unit is free: it goes into the input weight and its bias. The result is rigid."""
        cells, pairs = along(self.tensor(op.x), op.x_axis, op.features)
        self.tie(pairs)
        self.system.read.append(cells)
        self.system.views[op.name] = (cells, NO_CELLS)
        if op.frozen is not None:
            self.system.rigid.append((cells, op.frozen))
        else:
            self.system.shared.setdefault(op.weight, []).append((cells, NO_CELLS))
        for y in op.ys:
            self.ground(y, Reason.NONLINEAR)

    def affine(self, op: Affine) -> None:
        """Both units are free while it stays; it vanishes if its result's unit is `(s·S_x, s·T_x + t)`."""
        x, shape = self.tensor(op.x), self.shape(op.y)
        spread_of: Array | None
        if _lies_alike(op, x, len(shape)):
            cells, axes, s, t = x.cells, x.axes, op.scale.reshape(-1), op.shift.reshape(-1)
            spread_of = None if op.spread is None else op.spread.reshape(-1)
        else:
            scale, shift = np.broadcast_arrays(op.scale, op.shift)
            varies = [i + len(shape) - scale.ndim for i, size in enumerate(scale.shape) if size > 1]
            channel_axes = x.channel_axes
            clash = bool(varies) and not set(varies) <= channel_axes and (bool(channel_axes) or len(varies) > 1)
            if op.batch_norm:  # its parameters have room for units along its own axis only
                x, pairs = collapse(x, channel_axes - {1})
                self.tie(pairs)
            elif clash:
                self._positional(op, scale, shift)
                return
            cells, axes, index = self._meet(x, _constant_tensor(scale.shape, shape, varies), shape)
            s, t = scale.reshape(-1)[index], shift.reshape(-1)[index]
            spread_of = None if op.spread is None else np.broadcast_to(op.spread, scale.shape).reshape(-1)[index]
        out = self.system.new(cells.shape)
        flat, made = ravel(cells), ravel(out)
        gain = 0.0 if op.within else float(math.prod(size for size in shape if isinstance(size, int)))
        self.system.views[op.name] = (flat, made)
        self.system.axes[op.name] = axes
        self.system.made.append(made)
        only = op.y in self.relu_only
        constant = (s == 0) & (t > 0)
        if only and constant.any():
            self.constant[op.y] = made[constant]
            self.system.passing.append((made[constant], t[constant]))
        self.system.candidates.append(Candidate(op, flat, made, s, t, gain, only, spread_of))
        self.tensors[op.y] = tidy(out, axes)

    def _meet(self, x: Tensor, parameters: Tensor, shape: Shape) -> tuple[Cells, tuple[Axis, ...], Cells]:
        """A feature's cells and the parameters that meet them, in one arrangement, and its axes."""
        axes = common_axes([x, parameters], shape)
        if axes is None:
            x, pairs = collapse(x, x.channel_axes)
            self.tie(pairs)
            axes = common_axes([parameters], shape)
        assert axes is not None
        return spread(x, axes), axes, spread(parameters, axes).reshape(-1)

    def _positional(self, op: Affine, scale: Array, shift: Array) -> None:
        """A constant that varies by position: added, it can take up a shift; multiplied, it lets none pass."""
        if np.all(scale == 1) or np.all(scale == -1):
            self.offset(Offset(op.name, op.x, op.y, float(scale.flat[0]), shift))
            return
        if np.any(shift != 0):
            self.hold(op.x, reason=Reason.NONLINEAR)
            self.ground(op.y, Reason.NONLINEAR)
            return
        self.spatial(Spatial(op.name, op.x, op.y, axes=(), unit_sum=False))

    def offset(self, op: Offset) -> None:
        """Scales are equal; the constant takes up any shift.

        Behind a value without channels the constant itself says where units may differ: at each of its elements.
        """
        x, shape, constant = self.tensor(op.x), self.shape(op.y), op.constant
        varies = [i + len(shape) - constant.ndim for i, size in enumerate(constant.shape) if size > 1]
        own = [] if x.has_channels else [_constant_tensor(constant.shape, shape, varies)]
        axes = common_axes([x, *own], shape)
        if axes is None or constant.size > LARGEST_OFFSET:
            self.hold(op.x, reason=Reason.BOUNDARY)
            self.ground(op.y, Reason.BOUNDARY)
            return
        cells = spread(x, axes)
        out = self.system.new(cells.shape)
        self.system.ties.append(Tie(ravel(cells), ravel(out)))
        self.system.read.append(ravel(cells))
        self.system.made.append(ravel(out))
        self.system.views[op.name] = (ravel(cells), ravel(out))
        self.system.offsets.add(op.name)
        self.system.axes[op.name] = axes
        self.tensors[op.y] = tidy(out, axes)

    def table(self, op: Table) -> None:
        """The unit is free: the constant is rewritten."""
        out = self.system.new((op.channels,))
        self.system.made.append(out)
        self.system.views[op.name] = (NO_CELLS, out)
        self.tensors[op.y] = channels_on(out, self.shape(op.y), op.y_axis)

    def homogeneous(self, op: Homogeneous) -> None:
        """A positive scale passes, a shift does not, unless it is all there is: `max(0·x + t, 0) = 0·x + t`, t > 0."""
        cells = self.tensor(op.x).flat
        self.system.positive.append(cells)
        if op.clips and op.x in self.constant:
            self.constant[op.y] = self.constant[op.x]
            cells = cells[~np.isin(cells, self.constant[op.x])]
        self.system.pinned.append((cells, Reason.NONLINEAR))
        self.tensors[op.y] = self.tensor(op.x)

    def select(self, op: Select) -> None:
        """All operands have one unit; its scale is positive where their order matters."""
        aligned, axes = self.align(op.xs, op.y)
        first = aligned[0]
        for other in aligned[1:]:
            self.system.same(first, other)
        if op.positive:
            self.system.positive.append(ravel(first))
        self.system.read.append(ravel(first))
        self.tensors[op.y] = tidy(first, axes)
        self._note_constants(op.name, op.constants, self.tensors[op.y])

    def spatial(self, op: Spatial) -> None:
        """Channels pass one by one; a shift where the weights of the positions sum to 1."""
        x = self.tensor(op.x)
        axes = set(range(2, x.rank)) if op.axes is None else set(op.axes)
        x, pairs = collapse(x, x.channel_axes & axes)
        self.tie(pairs)
        cells = x.flat
        if op.positive:
            self.system.positive.append(cells)
        if not op.unit_sum:
            self.system.pinned.append((cells, Reason.ZERO_PAD))
        shape = self.shape(op.y)
        source = op.shape_axes if op.shape_axes is not None else tuple(range(len(shape)))
        kept = [i for i in source if i is not None]
        if not x.has_channels or not x.channel_axes <= set(kept):
            self.carry(op, op.x, op.y, None if x.has_channels else uniform(int(x.cells), shape))
            return
        factors = tuple(
            x.axes[i] if i is not None and i in x.channel_axes else (Factor(size),)
            for i, size in zip(source, shape, strict=True)
        )
        self.tensors[op.y] = tidy(x.cells, factors)

    def add(self, op: Add) -> None:
        """All three have one scale; the shifts add up."""
        (a, b), axes = self.align([op.a, op.b], op.y)
        if a.size > max(LARGEST_OUTER, *(self.tensor(v).cells.size for v in (op.a, op.b))):
            self.hold(op.a, op.b, reason=Reason.BOUNDARY)
            self.ground(op.y, Reason.BOUNDARY)
            return
        a, b = ravel(a), ravel(b)
        out = self.system.new([f.size for axis in axes for f in axis if f.channel and isinstance(f.size, int)])
        y = ravel(out)
        self.system.ties += [Tie(a, y), Tie(b, y)]
        self.system.rows.append(Row(((1.0, y), (-1.0, a), (-op.sign, b))))
        self.system.read += [a, b]
        self.system.made.append(y)
        self.system.views[op.name] = (np.concatenate([a, b]), y)
        self.system.sums.add(op.name)
        self.tensors[op.y] = tidy(out, axes)

    def gate(self, op: Gate) -> None:
        """The gate is rigid; the feature's scale passes, a shift does not."""
        if op.a == op.b:
            self.hold(op.a, reason=Reason.NONLINEAR)
            self.ground(op.y, Reason.NONLINEAR)
            return
        feature, gate = (op.a, op.b) if op.division or self._is_gate(op.b, op.a) else (op.b, op.a)
        self.hold(gate, reason=Reason.NONLINEAR)
        [cells], axes = self.align([feature], op.y)
        self.system.pinned.append((ravel(cells), Reason.NONLINEAR))
        self.system.read.append(ravel(cells))
        self.tensors[op.y] = tidy(cells, axes)

    def _is_gate(self, value: Value, other: Value) -> bool:
        """Whether `value` rather than `other` is the gate: it is rigid already, or smaller, or comes second."""
        mine, theirs = self.tensor(value), self.tensor(other)
        mine_rigid, theirs_rigid = bool(np.all(mine.cells < GROUND)), bool(np.all(theirs.cells < GROUND))
        if mine_rigid != theirs_rigid:
            return mine_rigid
        mine_size, theirs_size = _elements(self.shape(value)), _elements(self.shape(other))
        return mine_size <= theirs_size

    def mix(self, op: Mix) -> None:
        """Positions of the feature are mixed by a computed matrix, which is rigid."""
        a, b, shape = self.tensor(op.a), self.tensor(op.b), self.shape(op.y)
        if len(shape) >= 2 and b.has_channels and b.rank >= 2 and b.rank - 2 not in b.channel_axes:
            self._mix_feature(op, op.b, op.a, len(shape) - 2, op.unit_sum)
        elif len(shape) >= 2 and a.has_channels and a.rank >= 2 and a.rank - 1 not in a.channel_axes:
            self._mix_feature(op, op.a, op.b, len(shape) - 1, unit_sum=False)
        else:
            self.hold(op.a, op.b, reason=Reason.NONLINEAR)
            self.ground(op.y, Reason.NONLINEAR)

    def _mix_feature(self, op: Mix, feature: Value, matrix: Value, axis: int, unit_sum: bool) -> None:
        self.hold(matrix, reason=Reason.NONLINEAR)
        tensor, shape = self.tensor(feature), self.shape(op.y)
        cells = tensor.flat
        self.system.read.append(cells)
        if not unit_sum:
            self.system.pinned.append((cells, Reason.NONLINEAR))
        padding = tuple((Factor(size),) for size in shape[: len(shape) - tensor.rank])
        axes = _with_axis((*padding, *tensor.axes), axis, shape[axis])
        self.tensors[op.y] = tidy(tensor.cells, axes)

    def reshape(self, op: Reshape) -> None:
        """Channels are carried as far as they can be followed."""
        x = self.tensor(op.x)
        tensor = reshape(x, self.shape(op.y)) if x.has_channels else uniform(int(x.cells), self.shape(op.y))
        self.carry(op, op.x, op.y, tensor)

    def transpose(self, op: Transpose) -> None:
        """Channels move with their axes."""
        x = self.tensor(op.x)
        if x.rank != len(op.perm):
            self.carry(op, op.x, op.y, None)
            return
        self.tensors[op.y] = transpose(x, op.perm)

    def expand(self, op: Expand) -> None:
        """Every copy has the unit of the original."""
        [cells], axes = self.align([op.x], op.y)
        self.tensors[op.y] = tidy(cells, axes)

    def concat(self, op: Concat) -> None:
        """Along channels, side by side; along positions, all parts have one unit."""
        tensors = [None if x is None else self.tensor(x) for x in op.xs]
        if any(t is not None and op.axis in t.channel_axes for t in tensors):
            self._concat_channels(op)
            return
        present = [x for x in op.xs if x is not None]
        aligned, axes = self._align_except(present, op.y, op.axis)
        for other in aligned[1:]:
            self.system.same(aligned[0], other)
        self.system.read.append(ravel(aligned[0]))
        self.tensors[op.y] = tidy(aligned[0], _with_axis(axes, op.axis, self.shape(op.y)[op.axis]))
        self._note_constants(op.name, tuple(op.constants.values()), self.tensors[op.y])

    def _concat_channels(self, op: Concat) -> None:
        parts: list[Tensor] = []
        sizes = [self._part_size(op, i) for i in range(len(op.xs))]
        if any(size is None for size in sizes):
            self.hold(*(x for x in op.xs if x is not None), reason=Reason.BOUNDARY)
            self.ground(op.y, Reason.BOUNDARY)
            return
        for i, (x, size) in enumerate(zip(op.xs, sizes, strict=True)):
            assert size is not None
            if x is None:
                constant = op.constants[i]
                made = self.system.new((constant.shape[op.axis],))
                self.system.made.append(made)
                self.system.views[f"{op.name}#{i}"] = (NO_CELLS, made)
                parts.append(channels_on(made, constant.shape, op.axis))
                continue
            tensor = self.tensor(x)
            parts.append(
                full_axis(tensor if tensor.rank else uniform(int(tensor.cells), self.shape(op.y)), op.axis, size)
            )
        others = [_first_along(p, op.axis) for p in parts]
        shape = tuple(1 if i == op.axis else size for i, size in enumerate(self.shape(op.y)))
        axes = common_axes(others, shape)
        if axes is None:
            self.hold(*(x for x in op.xs if x is not None), reason=Reason.BOUNDARY)
            self.ground(op.y, Reason.BOUNDARY)
            return
        place = sum(f.channel for axis in axes[: op.axis] for f in axis)
        spreads = []
        for part, size in zip(parts, sizes, strict=True):
            assert size is not None
            own = _with_factor(axes, op.axis, size)
            spreads.append(spread(part, own))
        total = sum(size for size in sizes if size is not None)
        self.tensors[op.y] = tidy(np.concatenate(spreads, axis=place), _with_factor(axes, op.axis, total))

    def _part_size(self, op: Concat, i: int) -> int | None:
        x = op.xs[i]
        if x is None:
            return int(op.constants[i].shape[op.axis])
        shape = self.shape(x)
        size = shape[op.axis] if len(shape) > op.axis else None
        return size if isinstance(size, int) else None

    def _align_except(self, values: Sequence[Value], y: Value, axis: int) -> tuple[list[Cells], tuple[Axis, ...]]:
        """As `align`, for operands whose sizes differ along one axis that holds only positions."""
        tensors = [self.tensor(v) for v in values]
        axes = common_axes(tensors, self.shape(y))
        if axes is None:
            for i, tensor in enumerate(tensors):
                tensors[i], pairs = collapse(tensor, tensor.channel_axes)
                self.tie(pairs)
            axes = tuple((Factor(size),) for size in self.shape(y))
        return [spread(t, axes) for t in tensors], axes

    def _note_constants(self, name: str, constants: Sequence[NDArray[Any]], tensor: Tensor) -> None:
        """Remember in which unit constant operands have to be written."""
        if constants:
            self.system.made.append(tensor.flat)
            self.system.views[name] = (NO_CELLS, tensor.flat)
            self.system.axes[name] = tensor.axes

    def take(self, op: Take) -> None:
        """The chosen channels keep their units; positions are all alike."""
        x, shape = self.tensor(op.x), self.shape(op.y)
        if op.axis not in x.channel_axes:
            axes = list(x.axes)
            if op.keeps_axis:
                axes[op.axis : op.axis + 1] = [(Factor(shape[op.axis] if shape else None),)]
            elif axes:
                extra = len(shape) - (len(axes) - 1)  # a Gather with indices of rank r puts r axes in its place
                axes[op.axis : op.axis + 1] = [(Factor(size),) for size in shape[op.axis : op.axis + max(extra, 0)]]
            self.tensors[op.y] = tidy(x.cells, axes) if x.rank else uniform(int(x.cells), shape)
            return
        if op.index is None:
            single, pairs = collapse(x, x.channel_axes)
            self.tie(pairs)
            self.tensors[op.y] = uniform(int(single.cells), shape)
            return
        size = self.shape(op.x)[op.axis]
        if not isinstance(size, int):
            self.hold(op.x, reason=Reason.BOUNDARY)
            self.ground(op.y, Reason.BOUNDARY)
            return
        whole = full_axis(x, op.axis, size)
        place = whole.dims_of(op.axis).start
        cells = whole.cells.take(op.index, axis=place)
        chosen: list[Axis] = list(whole.axes)
        chosen[op.axis : op.axis + 1] = [(Factor(n, True),) for n in op.index.shape]
        self.tensors[op.y] = tidy(cells, chosen)

    def zero_pad(self, op: ZeroPad) -> None:
        """Zeros added to positions let no shift pass; zeros added as channels are constants without one."""
        x = self.tensor(op.x)
        padded = [i for i in range(len(op.before)) if op.before[i] or op.after[i]]
        pinned = [i for i in padded if i not in x.channel_axes]
        if pinned:
            self.system.pinned.append((x.flat, Reason.ZERO_PAD))
        for axis in padded:
            if axis in pinned:
                x = Tensor(x.cells, _with_axis(x.axes, axis, self.shape(op.y)[axis]))
                continue
            size = self.shape(op.x)[axis]
            if not isinstance(size, int) or op.before[axis] < 0 or op.after[axis] < 0:
                self.hold(op.x, reason=Reason.BOUNDARY)
                self.ground(op.y, Reason.BOUNDARY)
                return
            x = full_axis(x, axis, size)
            place = x.dims_of(axis).start
            before, after = (self._zeros(x.cells, place, count) for count in (op.before[axis], op.after[axis]))
            cells = np.concatenate([before, x.cells, after], axis=place)
            x = Tensor(cells, _with_factor(x.axes, axis, cells.shape[place]))
        self.tensors[op.y] = tidy(x.cells, x.axes)

    def _zeros(self, like: Cells, dim: int, count: int) -> Cells:
        """Cells of a constant 0: any scale, no shift."""
        zeros = self.system.new((*like.shape[:dim], count, *like.shape[dim + 1 :]))
        self.system.pinned.append((ravel(zeros), Reason.ZERO_PAD))
        return zeros

    def rigid(self, op: Rigid) -> None:
        """Everything keeps its unit."""
        self.hold(*op.xs, reason=op.reason)
        for y in op.ys:
            self.ground(y, op.reason)


LAWS: dict[type[Op], Callable[[Laws, Any], None]] = {
    Add: Laws.add,
    Affine: Laws.affine,
    Concat: Laws.concat,
    Expand: Laws.expand,
    Gate: Laws.gate,
    Homogeneous: Laws.homogeneous,
    Linear: Laws.linear,
    Mix: Laws.mix,
    Offset: Laws.offset,
    Recurrent: Laws.recurrent,
    Reshape: Laws.reshape,
    Rigid: Laws.rigid,
    Select: Laws.select,
    Spatial: Laws.spatial,
    Table: Laws.table,
    Take: Laws.take,
    Transpose: Laws.transpose,
    ZeroPad: Laws.zero_pad,
}


def shift_passes(op: Linear) -> Mask:
    """For each input channel, whether its response to a constant image is the same at every position.

    The response at a position is a sum over the taps that fall on the input there. It is compared over all sets of taps
    that occur; a channel whose weights differ by a rounding error counts as different.

    Returns:
        bool[in_channels].
    """
    count = op.kernel.in_channels
    if op.window is None or op.window.uniform:
        return np.ones(count, dtype=np.bool_)
    patterns = op.window.patterns()
    if all(len(p) == 1 for p in patterns):
        return np.ones(count, dtype=np.bool_)
    weight = op.kernel.weight()
    first = op.kernel.first_outputs(weight).astype(np.float64)
    same: Mask = np.abs(first @ _first_difference(op.window)) <= 1e-14 * np.abs(first).sum(axis=1)
    if not same.any():
        return same  # most channels differ at the first output
    return _same_everywhere(op.kernel.grouped(weight), patterns)


@lru_cache(maxsize=4096)
def _first_difference(window: Window) -> Array:
    """What to multiply the taps with for the difference of two responses: one axis at its first two sets of taps."""
    patterns = window.patterns()
    axis = next(i for i, p in enumerate(patterns) if len(p) > 1)
    factors = [p[0].astype(np.float64) for p in patterns]
    factors[axis] = patterns[axis][1].astype(np.float64) - factors[axis]
    return np.asarray(reduce(np.multiply.outer, factors).reshape(-1))


def _same_everywhere(weight: NDArray[Any], patterns: tuple[Mask, ...]) -> Mask:
    responses = weight.astype(np.float64)
    for pattern in patterns:  # the first tap axis left becomes the last pattern axis
        responses = np.tensordot(responses, pattern.astype(np.float64), axes=([3], [1]))
    flat = responses.reshape(*responses.shape[:3], -1)
    spread_of = np.abs(flat - flat[..., :1]).max(axis=(1, 3))
    size = np.abs(weight.astype(np.float64)).reshape(*weight.shape[:3], -1).sum(axis=3).max(axis=1)
    same: Mask = (spread_of <= 1e-14 * size).reshape(-1)
    return same


def _lies_alike(op: Affine, x: Tensor, rank: int) -> bool:
    """Whether an affine has one parameter for each cell of its input, on the axis where they lie."""
    own, count = op.scale.shape, x.cells.size
    if x.cells.ndim != 1 or x.rank != rank or op.scale.size != count or op.shift.shape != own:
        return False
    if op.spread is not None and op.spread.shape != own:
        return False
    [axis] = x.channel_axes
    at = axis - (rank - len(own))
    return len(x.axes[axis]) == 1 and at >= 0 and own[at] == count and (axis == 1 or not op.batch_norm)


def _with_axis(axes: Sequence[Axis], at: int, size: int | str | None) -> tuple[Axis, ...]:
    """The same axes, one of them holding positions only."""
    return tuple((Factor(size),) if i == at else axis for i, axis in enumerate(axes))


def _with_factor(axes: Sequence[Axis], at: int, size: int) -> tuple[Axis, ...]:
    """The same axes, one of them a single channel factor."""
    return tuple((Factor(size, True),) if i == at else axis for i, axis in enumerate(axes))


def _first_along(tensor: Tensor, axis: int) -> Tensor:
    """The first slice along an axis that is a single channel factor."""
    cells: Cells = np.asarray(tensor.cells.take(0, axis=tensor.dims_of(axis).start))
    return tidy(cells, _with_axis(tensor.axes, axis, 1))


def _constant_tensor(own: tuple[int, ...], shape: Shape, varies: Sequence[int]) -> Tensor:
    """Indices of a constant's elements, laid out as channels on the axes along which it varies."""
    lead = len(shape) - len(own)
    axes = tuple((Factor(own[i - lead], True),) if i in varies else (Factor(1),) for i in range(len(shape)))
    count = math.prod(own)
    return tidy(np.arange(count, dtype=np.int64).reshape([own[i - lead] for i in varies]), axes)


def _elements(shape: Shape) -> int:
    """Number of elements as far as it is known; an unknown size counts as many."""
    return math.prod(size if isinstance(size, int) else 1 << 10 for size in shape)


def _read_by_relu_only(graph: Graph) -> set[Value]:
    """Values of which only max(x, 0) is ever seen."""
    relu: set[Value] = set()
    others: set[Value] = set(graph.outputs)
    for op in graph.ops:
        for value in _reads(op):
            (relu if isinstance(op, Homogeneous) and op.clips else others).add(value)
    return relu - others


def _reads(op: Op) -> list[Value]:
    names = ("x", "a", "b")
    single = [getattr(op, name) for name in names if hasattr(op, name)]
    return single + [x for x in getattr(op, "xs", ()) if x is not None]
