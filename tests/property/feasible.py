"""Which sets of BatchNorms can vanish, decided from the laws alone, channel by channel, by plain linear algebra.

Every channel of every tensor has a unit `X = S·X' + T`. Laws between them:

- scales: linear equations in log|S|, and over GF(2) in the sign bit of S;
- shifts: linear equations in T. No law mixes S and T, so they are solved apart.

Origins (outputs of Linear operators, of BatchNorms, of other constant affines, constant tables) have free units: one
unknown per channel. Any other tensor's unit is a linear form in the unknowns, and every law is a row that must vanish.
A BatchNorm that stays imposes nothing; one that vanishes adds the rows `log|S_out| − log|S_in| = log|s|`,
`sign_out + sign_in = [s < 0]` and `T_out − s·T_in = t`. A set of BatchNorms can vanish iff all rows have a common
solution, so feasible sets are downward closed, and a search over subsets finds the largest.

Zero gammas have no place here (log 0), see test_property.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np

from . import naive
from .naive import Array
from .spec import Spec, Step

TOLERANCE = 1e-8

LINEAR = ("conv", "conv_transpose", "gemm", "matmul")
HOMOGENEOUS = ("relu", "leaky_relu", "prelu", "abs")
SPATIAL = ("average_pool", "global_average_pool", "resize", "pad", "identity")


@dataclass
class Laws:
    """The laws of one graph as rows over the unknowns.

    Attributes:
        scale: Rows with row @ log|S| = 0.
        shift: Rows with row @ T = 0.
        sign: Rows with row @ sign bits = 0 modulo 2.
        norms: For every BatchNorm, by step index: scale rows, log|s|, sign bits of s, shift rows, t.
    """

    scale: list[Array]
    shift: list[Array]
    sign: list[Array]
    norms: dict[int, tuple[Array, Array, Array, Array, Array]]


def gather_laws(spec: Spec, *, exact: bool = False, tied: bool = False) -> Laws:
    """Walks the graph once.

    Args:
        spec: The graph.
        exact: Where a law speaks of a response to a constant image, take it for all channels together (`Σ_c T_c·r_c` is
            the same at every position), let averages that count zeros scale the shift, and let tables and scalars next
            to a value without channels of its own (a graph input) take up units per channel. False is the law channel
            by channel, which can only be stricter. And where operators share a weight, `W·S_in/S_out` must be the same
            for them where `W` is not 0, so that their units may differ by what cancels; False is that they are equal.
        tied: Whether operators that share a weight must go on doing so.
    """
    return _Walk(spec, exact, tied).laws


class _Walk:
    """Units of every tensor as linear forms: scale, sign and shift rows float64[channels, unknowns]."""

    def __init__(self, spec: Spec, exact: bool, tied: bool) -> None:
        self.spec, self.exact = spec, exact
        self.laws = Laws([], [], [], {})
        self.unknowns = sum(
            spec.values[name].shape[spec.axes[name]]
            for step in spec.steps
            for name in step.writes
            if step.op in (*LINEAR, "bn", "const", "table", "concat")
        )
        self.used = 0
        self.scale: dict[str, Array] = {}
        self.shift: dict[str, Array] = {}
        for name in spec.inputs:
            self._rigid_source(name)
        for index, step in enumerate(spec.steps):
            self._visit(index, step)
        for name in spec.outputs:
            self._rigid(name)
        for index, key, owner in spec.shared if tied else ():
            if key == "weight":
                self._tie(spec.steps[owner], spec.steps[index])

    # Rows

    def _size(self, name: str) -> int:
        return int(self.spec.values[name].shape[self.spec.axes[name]])

    def _new(self, count: int) -> Array:
        rows = np.zeros((count, self.unknowns))
        rows[np.arange(count), self.used + np.arange(count)] = 1.0
        self.used += count
        return rows

    def _free(self, name: str) -> None:
        self.scale[name] = self.shift[name] = self._new(self._size(name))

    def _rigid_source(self, name: str) -> None:
        self.scale[name] = self.shift[name] = np.zeros((self._size(name), self.unknowns))

    def _zero_shift(self, name: str) -> None:
        self.laws.shift.extend(self.shift[name])

    def _positive(self, name: str) -> None:
        self.laws.sign.extend(self.scale[name])

    def _same_scale(self, a: Array, b: Array) -> None:
        self.laws.scale.extend(a - b)
        self.laws.sign.extend(a - b)

    def _rigid(self, name: str) -> None:
        self.laws.scale.extend(self.scale[name])
        self._positive(name)
        self._zero_shift(name)

    # Laws

    def _visit(self, index: int, step: Step) -> None:
        out = step.writes[0]
        if step.op in LINEAR:
            self._linear(step)
            self._free(out)
        elif step.op == "bn":
            self._free(out)
            self._norm(index, step)
        elif step.op == "const":
            self._const(step)
        elif step.op in HOMOGENEOUS:
            self._carry(step, lambda rows: rows)
            self._positive(step.reads[0])
            self._zero_shift(step.reads[0])
        elif step.op == "max_pool":
            self._carry(step, lambda rows: rows)
            self._positive(step.reads[0])
        elif step.op in SPATIAL:
            self._averaging(step)
        elif step.op == "rigid":
            self._rigid(step.reads[0])
            self._rigid_source(out)
        else:
            getattr(self, f"_{step.op}")(step)

    def _carry(self, step: Step, move: Callable[[Array], Array]) -> None:
        self.scale[step.writes[0]] = move(self.scale[step.reads[0]])
        self.shift[step.writes[0]] = move(self.shift[step.reads[0]])

    def _response(self, step: Step, name: str) -> Array:
        """What a step without its bias makes of the image that is 1 in one channel: float64[channel, out, position]."""
        axis, shape = self.spec.axes[name], self.spec.values[name].shape
        size = shape[axis]
        if step.op in ("gemm", "matmul"):
            return np.zeros((size, 1, 1))  # no positions to tell apart
        images = np.zeros((size, *shape[1:]))
        for channel in range(size):
            images[(channel, *(slice(None),) * (axis - 1), channel)] = 1.0
        bare = Step(step.op, step.reads, step.writes, step.attrs, {k: v for k, v in step.consts.items() if k != "bias"})
        result = naive.step(bare, [images])[0]
        return np.moveaxis(result, axis, 1).reshape(size, result.shape[axis], -1)

    def _linear(self, step: Step) -> None:
        name = step.reads[0]
        response = self._response(step, name)
        uneven = response - response[:, :, :1]
        if self.exact:
            self.laws.shift.extend(uneven.reshape(len(uneven), -1).T @ self.shift[name])
        else:
            stuck = np.abs(uneven).max(axis=(1, 2)) > TOLERANCE
            self.laws.shift.extend(self.shift[name][stuck])

    def _tie(self, first: Step, other: Step) -> None:
        """Two operators with one stored weight: what it becomes is the same for both."""
        scales = [(self.scale[step.reads[0]], self.scale[step.writes[0]]) for step in (first, other)]
        (x, y), (other_x, other_y) = scales
        if not self.exact:
            self._same_scale(x, other_x)
            self._same_scale(y, other_y)
            return
        for i, o in _entries(first):
            self._same_scale(x[i : i + 1] - y[o : o + 1], other_x[i : i + 1] - other_y[o : o + 1])

    def _norm(self, index: int, step: Step) -> None:
        s, t = naive.affine_of(step)
        (name,), out = step.reads, step.writes[0]
        scale_rows = self.scale[out] - self.scale[name]
        shift_rows = self.shift[out] - s[:, None] * self.shift[name]
        self.laws.norms[index] = (scale_rows, np.log(np.abs(s)), (s < 0).astype(float), shift_rows, t)

    def _const(self, step: Step) -> None:
        """Free on both sides; a scalar behind a value without channels of its own gives another one."""
        out = step.writes[0]
        if self.exact or step.consts["value"].size > 1 or not self._uniform(step.reads[0]):
            self._free(out)
            return
        self.scale[out] = self.shift[out] = np.repeat(self._new(1), self._size(out), axis=0)

    def _uniform(self, name: str) -> bool:
        """Whether all channels of a tensor have one unit by construction, as those of a graph input."""
        rows = self.scale[name]
        return bool((rows == rows[0]).all() and (self.shift[name] == self.shift[name][0]).all())

    def _averaging(self, step: Step) -> None:
        name, out = step.reads[0], step.writes[0]
        self.scale[out] = self.scale[name]
        response = np.einsum("ccp->cp", self._response(step, name))
        uniform = np.abs(response - response[:, :1]).max(axis=1) <= TOLERANCE
        if not self.exact:
            uniform &= np.abs(response[:, 0] - 1.0) <= TOLERANCE
        self.laws.shift.extend(self.shift[name][~uniform])
        self.shift[out] = np.where(uniform, response[:, 0], 0.0)[:, None] * self.shift[name]

    def _add(self, step: Step, sign: float = 1.0) -> None:
        a, b = step.reads
        self._same_scale(self.scale[a], self.scale[b])
        self.scale[step.writes[0]] = self.scale[a]
        self.shift[step.writes[0]] = self.shift[a] + sign * self.shift[b]

    def _sub(self, step: Step) -> None:
        self._add(step, -1.0)

    def _table(self, step: Step) -> None:
        """A constant tensor is rewritten: it takes any shift, but the scale passes."""
        name, out = step.reads[0], step.writes[0]
        if step.consts["value"].size == self._size(name):  # one position: a constant per channel
            self._free(out)
            return
        if not self.exact and self._uniform(name):
            self._rigid(name)
            self._rigid_source(out)
            return
        self.scale[out] = self.scale[name]
        self.shift[out] = self._new(self._size(out))

    def _max(self, step: Step) -> None:
        a, b = step.reads
        self._same_scale(self.scale[a], self.scale[b])
        self._positive(a)
        self.laws.shift.extend(self.shift[a] - self.shift[b])
        self._carry(step, lambda rows: rows)

    def _gate(self, step: Step) -> None:
        feature, gate = step.reads
        self._rigid(gate)
        self._zero_shift(feature)
        self._carry(step, lambda rows: rows)

    def _concat(self, step: Step) -> None:
        out = step.writes[0]
        constant = self._new(self._size(out) - sum(map(self._size, step.reads)))
        self.scale[out] = np.concatenate([*(self.scale[name] for name in step.reads), constant])
        self.shift[out] = np.concatenate([*(self.shift[name] for name in step.reads), constant])

    def _split(self, step: Step) -> None:
        cuts = np.cumsum(step.attrs["sizes"])[:-1]
        for kind in (self.scale, self.shift):
            kind.update(zip(step.writes, np.split(kind[step.reads[0]], cuts), strict=True))

    def _gather(self, step: Step) -> None:
        self._carry(step, lambda rows: rows[list(step.attrs["indices"])])

    def _flatten(self, step: Step) -> None:
        positions = prod(self.spec.values[step.reads[0]].shape[2:])
        self._carry(step, lambda rows: np.repeat(rows, positions, axis=0))

    def _reshape(self, step: Step) -> None:
        """Positions merge or split and channels stay, or features become an image: those of a channel must agree."""
        before, after = self._size(step.reads[0]), self._size(step.writes[0])
        if before != after:
            grouped = np.arange(before).reshape(after, -1)
            for rows, laws in ((self.scale, [self.laws.scale, self.laws.sign]), (self.shift, [self.laws.shift])):
                features = rows[step.reads[0]]
                for law in laws:
                    law.extend((features[grouped] - features[grouped[:, :1]]).reshape(before, -1))
            self._carry(step, lambda rows: rows[grouped[:, 0]])
            return
        self._carry(step, lambda rows: rows)

    def _transpose(self, step: Step) -> None:
        self._carry(step, lambda rows: rows)


def _entries(step: Step) -> list[tuple[int, int]]:
    """Pairs of an input and an output channel that a weight other than 0 joins."""
    weight, groups = step.consts["weight"], step.attrs.get("groups", 1)
    if step.op in ("matmul", "gemm"):
        joined = weight if step.op == "matmul" or not step.attrs["transB"] else weight.T
        return [(int(i), int(o)) for i, o in np.argwhere(joined)]
    assert step.op == "conv", step.op
    out, inner = weight.shape[:2]
    return [(o // (out // groups) * inner + i, o) for o in range(out) for i in range(inner) if weight[o, i].any()]


class Search:
    """Feasibility of subsets of one graph's BatchNorms."""

    def __init__(self, spec: Spec, *, exact: bool = False, tied: bool = False) -> None:
        laws = gather_laws(spec, exact=exact, tied=tied)
        self.norms = tuple(laws.norms)
        width = max((rows[0].shape[1] for rows in laws.norms.values()), default=0)
        scale_null, shift_null = _null_space(laws.scale, width), _null_space(laws.shift, width)
        self._scale = {key: (norm[0] @ scale_null, norm[1]) for key, norm in laws.norms.items()}
        self._shift = {key: (norm[3] @ shift_null, norm[4]) for key, norm in laws.norms.items()}
        self._sign_laws = [(_bits(row), 0) for row in laws.sign]
        self._sign = {
            key: [(_bits(row), int(bit)) for row, bit in zip(norm[0], norm[2], strict=True)]
            for key, norm in laws.norms.items()
        }

    def feasible(self, subset: Sequence[int]) -> bool:
        """Whether these BatchNorms (step indices) can all vanish together."""
        return self.refusal(subset) is None

    def refusal(self, subset: Sequence[int]) -> str | None:
        """Which kind of equation has no solution: "scale", "sign", "shift" or None."""
        if not subset:
            return None
        if not _solvable([self._scale[key] for key in subset]):
            return "scale"
        if not _solvable_mod_2(self._sign_laws + [row for key in subset for row in self._sign[key]]):
            return "sign"
        return None if _solvable([self._shift[key] for key in subset]) else "shift"

    def largest(self) -> tuple[int, ...]:
        """A largest set of BatchNorms that can vanish together, by exhaustive search."""
        alone = [key for key in self.norms if self.feasible([key])]
        enemies = {pair for pair in combinations(alone, 2) if not self.feasible(pair)}
        for size in range(len(alone), 0, -1):
            for subset in combinations(alone, size):
                if any(pair in enemies for pair in combinations(subset, 2)):
                    continue
                if size <= 2 or self.feasible(subset):
                    return subset
        return ()


def largest_removable(spec: Spec, *, exact: bool = False, tied: bool = False) -> int:
    """How many BatchNorms of a graph can vanish at most."""
    return len(Search(spec, exact=exact, tied=tied).largest())


def _null_space(rows: Sequence[Array], width: int) -> Array:
    """Columns spanning {z: rows @ z = 0}."""
    kept = [row for row in rows if np.any(row)]
    if not kept or not width:
        return np.eye(width)
    _, singular, right = np.linalg.svd(np.unique(np.array(kept), axis=0))
    rank = int(np.sum(singular > TOLERANCE * max(1.0, singular[0])))
    return np.asarray(right[rank:].T)


def _solvable(blocks: Sequence[tuple[Array, Array]]) -> bool:
    matrix = np.concatenate([block[0] for block in blocks])
    right = np.concatenate([block[1] for block in blocks])
    size = np.linalg.norm(matrix)
    if size <= TOLERANCE:
        return bool(np.abs(right).max() <= TOLERANCE)
    solution = np.linalg.lstsq(matrix, right, rcond=TOLERANCE / size)[0]
    return bool(np.abs(matrix @ solution - right).max() <= 10 * TOLERANCE)


def _bits(row: Array) -> int:
    """A row with entries in {−1, 0, 1, …} modulo 2, as a bit set."""
    return sum(1 << int(column) for column in np.flatnonzero(np.round(row).astype(int) % 2))


def _solvable_mod_2(rows: Sequence[tuple[int, int]]) -> bool:
    pivots: dict[int, tuple[int, int]] = {}
    for row, bit in rows:
        while row:
            lead = row.bit_length()
            if lead not in pivots:
                pivots[lead] = (row, bit)
                break
            other, other_bit = pivots[lead]
            row, bit = row ^ other, bit ^ other_bit
        else:
            if bit:
                return False
    return True
