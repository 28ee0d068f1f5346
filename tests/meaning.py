"""What a graph made by hand computes in float64: as it stands, and rewritten with the units of a solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from handmade import Net, torch_of
from numpy.typing import NDArray

from bnfold.planning.economy import between_units
from bnfold.planning.plan import Folding
from bnfold.units import graph as g
from bnfold.units.affine import Unit, rewrite
from bnfold.units.laws import Laws
from bnfold.units.layout import Factor, Tensor
from bnfold.units.solver import Solution
from bnfold.units.system import System


def dense(tensor: Tensor, shape: Sequence[int]) -> NDArray[np.int64]:
    """The cell of every element of a tensor of this shape: what a layout means."""
    sizes: list[int] = []
    flags: list[bool] = []
    for axis, total in zip(tensor.axes, shape, strict=True):
        known = int(np.prod([f.size for f in axis if isinstance(f.size, int)], dtype=np.int64))
        for factor in axis:
            sizes.append(factor.size if isinstance(factor.size, int) else total // known)
            flags.append(factor.channel)
    cells = tensor.cells.reshape([size if flag else 1 for size, flag in zip(sizes, flags, strict=True)])
    return np.broadcast_to(cells, sizes).reshape(tuple(shape))


@dataclass(frozen=True)
class Units:
    """The layouts of a graph's values and a solution: enough to rewrite it."""

    net: Net
    tensors: dict[g.Value, Tensor]
    system: System
    solution: Solution

    def of(self, value: str) -> Unit:
        """The unit of every element of a value."""
        tensor = self.tensors[value]
        shape = self.net.shapes[value]
        if tensor.rank != len(shape):
            tensor = Tensor(tensor.cells, tuple((Factor(size),) for size in shape))
        return self.solution.unit(dense(tensor, shape))


def units_of(net: Net, solution: Solution) -> Units:
    """The units that a solution gives to every value of a net."""
    graph = net.graph()
    laws = Laws(graph)
    for op in graph.ops:
        laws.apply(op)
    assert laws.system.size == len(solution.scale), "the solution belongs to another graph"
    return Units(net, laws.tensors, laws.system, solution)


def evaluate(net: Net, feeds: dict[str, torch.Tensor], units: Units | None = None) -> dict[str, torch.Tensor]:
    """Every value in float64: of the graph as it stands, or as it is rewritten with these units."""
    values = dict(feeds)
    for op in net.ops:
        if isinstance(op, g.Linear):
            values[op.y] = _linear(net, op, values[op.x], units)
        elif isinstance(op, g.Affine):
            values[op.y] = _affine(op, values[op.x], units)
        elif isinstance(op, g.Offset):
            values[op.y] = _offset(op, values[op.x], units)
        elif isinstance(op, g.Table):
            identity = Unit(*(np.array(v) for v in (1.0, 0.0, 1.0, 0.0)))
            unit = identity if units is None else units.solution.unit(units.system.views[op.name][1])
            values[op.y] = net.run_other[op.name](values[f"{op.name}:i"], unit)
        elif isinstance(op, g.Concat):
            values[op.y] = _concat(net, op, values, units)
        elif isinstance(op, g.Select):
            operands = [values[x] for x in op.xs]
            operands += [_constant(c, None if units is None else units.of(op.y)) for c in op.constants]
            values[op.y] = net.run_other[op.name](*operands)
        else:
            reads = [getattr(op, n) for n in ("x", "a", "b") if hasattr(op, n)] or list(op.xs)
            y = op.ys[0] if isinstance(op, g.Rigid) else op.y
            values[y] = net.run_other[op.name](*(values[x] for x in reads))
    return values


def _linear(net: Net, op: g.Linear, x: torch.Tensor, units: Units | None) -> torch.Tensor:
    weight, bias = op.kernel.weight(), net.biases[op.name]
    if units is not None and op.name in units.system.views:
        reader, writer = (units.solution.unit(cells) for cells in units.system.views[op.name])
        weight, bias = rewrite(op.kernel, bias, reader, writer)
    result = net.run_linear[op.name](x, torch_of(weight))
    if bias is not None:
        result = result + torch_of(bias).reshape([-1 if i == op.y_axis else 1 for i in range(result.ndim)])
    return result


def _affine(op: g.Affine, x: torch.Tensor, units: Units | None) -> torch.Tensor:
    if units is None:
        return torch_of(op.scale) * x + torch_of(op.shift)
    if op.name in units.solution.removed:
        return x
    reader, writer = units.of(op.x), units.of(op.y)
    s, t = op.scale * writer.inverse_scale * reader.scale, op.scale * reader.shift + op.shift
    return torch_of(s) * x + torch_of(writer.inverse_scale * t + writer.inverse_shift)


def _offset(op: g.Offset, x: torch.Tensor, units: Units | None) -> torch.Tensor:
    constant = np.asarray(op.constant)
    if units is not None:
        reader, writer = units.of(op.x), units.of(op.y)
        constant = writer.inverse_scale * (op.sign * reader.shift + constant) + writer.inverse_shift
    return op.sign * x + torch_of(constant)


def _constant(constant: NDArray[np.generic], unit: Unit | None) -> torch.Tensor:
    return torch_of(constant if unit is None else constant * unit.inverse_scale + unit.inverse_shift)


def _concat(net: Net, op: g.Concat, values: dict[str, torch.Tensor], units: Units | None) -> torch.Tensor:
    parts, at = [], 0
    whole = None if units is None else units.of(op.y)
    for i, x in enumerate(op.xs):
        size = op.constants[i].shape[op.axis] if x is None else values[x].shape[op.axis]
        if x is not None:
            parts.append(values[x])
        else:
            here = (slice(None),) * op.axis + (slice(at, at + size),)
            own = (
                None
                if whole is None
                else Unit(whole.scale[here], whole.shift[here], whole.inverse_scale[here], whole.inverse_shift[here])
            )
            parts.append(_constant(op.constants[i], own))
        at += size
    return net.run_other[op.name](*parts)


def check_exact(net: Net, done: Solution | Folding, tolerance: float = 1e-9) -> None:
    """A rewritten net computes what it did, and every kept BatchNorm has room for its new parameters."""
    solution = done.solution if isinstance(done, Folding) else done
    units = units_of(net, solution)
    feeds = net.feeds()
    before, after = evaluate(net, feeds), evaluate(net, feeds, units)
    for name in net.outputs:
        size = max(float(before[name].abs().max()), 1.0)
        error = float((before[name] - after[name]).abs().max())
        assert error <= tolerance * size, f"output {name}: error {error:.3g}, values up to {size:.3g}"
    for op in net.ops:
        if isinstance(op, g.Affine) and op.name in units.system.views and op.name not in solution.removed:
            reader, writer = (solution.unit(cells) for cells in units.system.views[op.name])
            candidate = next((c for c in units.system.candidates if c.op.name == op.name), None)
            if candidate is not None:
                assert all(np.isfinite(a).all() for a in between_units(candidate, reader, writer))


def check_units(net: Net, solution: Solution, tolerance: float = 1e-9) -> None:
    """Every value is `S·X' + T` of the rewritten one (where no zero scale stands in the way)."""
    units = units_of(net, solution)
    feeds = net.feeds()
    before, after = evaluate(net, feeds), evaluate(net, feeds, units)
    for name, value in before.items():
        unit = units.of(name)
        restored = torch_of(unit.scale) * after[name] + torch_of(unit.shift)
        size = max(float(value.abs().max()), 1.0)
        assert float((restored - value).abs().max()) <= tolerance * size, f"{name} is not S·X' + T"
