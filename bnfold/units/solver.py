"""Which affines vanish, and every tensor's unit.

An affine `y = s·x + t` vanishes if the system stays solvable with `S_y = s·S_x` and `T_y = s·T_x + t` added. Scales and
shifts do not meet, so they are checked by two solvers that can both take steps back (`scales`, `shifts`).

The sets of affines that can vanish together are closed downwards: an affine that stays puts no demand on its two sides.
For each half alone they form a matroid, where greedy is a maximum; together, and where an affine spans several classes,
they need not. So after a greedy pass that had to refuse something, a component of the graph is searched exactly if it
has few affines, and by exchanges (take one out, try to put two in) otherwise.

Where a channel of an affine has `s = 0` its result is the constant `t`, and the equation for scales has no inverse.
There are two ways out: the result becomes a constant that is only read (`S_y = 0`, if nothing that divides by it writes
it), or the input becomes one that is only written (`R_x = 0`, if nothing else reads it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np

from bnfold.reasons import Reason
from bnfold.units.affine import Array, Unit
from bnfold.units.blocks import Blocks, Lanes, Piece, every
from bnfold.units.layout import Cells
from bnfold.units.scales import Scales
from bnfold.units.shifts import Shifts
from bnfold.units.system import REASONS, Candidate, System
from bnfold.units.window import Mask

EXACT = 12  # affines in a component that is still searched exhaustively
ROUNDING = 1e-12  # what a shift may gather on its way
EXCHANGE_STEPS = 20_000  # attempts an exchange pass may cost

# What the user is told when several laws stand in the way together: the first of these that is among them.
PRECEDENCE = (
    Reason.EXCLUDED,
    Reason.HOOK,
    Reason.TRAINING,
    Reason.DTYPE,
    Reason.NOT_CONSTANT,
    Reason.SHARED_WEIGHT,
    Reason.ZERO_PAD,
    Reason.SHARED_UNIT,
    Reason.BOUNDARY,
    Reason.IO,
    Reason.NONLINEAR,
)


@dataclass(frozen=True)
class Solution:
    """The outcome: what vanishes, why the rest stays, and the unit of every cell.

    Attributes:
        removed: Names of the affines that vanish.
        refused: Why each of the others stays, by name.
        scale: float64[cells], `S`.
        shift: float64[cells], `T`.
        inverse_scale: float64[cells], `R`.
        inverse_shift: float64[cells], `U`.
    """

    removed: frozenset[str]
    refused: Mapping[str, Reason]
    scale: Array
    shift: Array
    inverse_scale: Array
    inverse_shift: Array

    @cached_property
    def _changed(self) -> Mask:
        changed: Mask = (self.scale != 1) | (self.shift != 0) | (self.inverse_scale != 1) | (self.inverse_shift != 0)
        return changed

    def touches(self, cells: Cells) -> bool:
        """Whether any of these cells has another unit than before."""
        return bool(np.count_nonzero(self._changed[cells]))

    def unit(self, cells: Cells) -> Unit:
        """The unit of some cells."""
        return Unit(self.scale[cells], self.shift[cells], self.inverse_scale[cells], self.inverse_shift[cells])


@dataclass(eq=False)
class _Member:
    """A candidate cut into pieces.

    Attributes:
        candidate: The affine.
        pieces: Parts of it between two blocks.
        parts: The same with their scales and shifts.
        finite: Whether its numbers are.
        base: Reasons for which its two sides are rigid before anything vanished.
    """

    candidate: Candidate
    pieces: list[Piece]
    base: tuple[frozenset[Reason], frozenset[Reason]] = (frozenset(), frozenset())

    def __post_init__(self) -> None:
        c = self.candidate
        self.name = c.op.name
        self.finite = bool(np.isfinite(c.scale).all() and np.isfinite(c.shift).all())
        scale: Lanes = 1.0 if (c.scale == 1).all() else c.scale
        shift: Lanes = c.shift if c.shift.any() else 0.0
        self.parts: list[tuple[Piece, Lanes, Lanes]] = [(p, _at(scale, p), _at(shift, p)) for p in self.pieces]

    @property
    def weight(self) -> tuple[int, float]:
        """What its removal is worth: BatchNorms first, then activation traffic."""
        return (1 if self.candidate.op.batch_norm else 0, self.candidate.gain)


def _at(values: Lanes, piece: Piece) -> Lanes:
    return values[piece.index] if isinstance(values, np.ndarray) and piece.index is not None else values


def solve(system: System, excluded: Mapping[str, Reason] | None = None) -> Solution:
    """Find the affines that vanish and the unit of every cell.

    Args:
        system: What the laws say.
        excluded: Affines that must stay, by name, with the reason.

    Returns:
        A solution that obeys every law. With nothing removed, every unit is the identity.
    """
    return Solver(system).solve(excluded or {})


class Solver:
    """The state of a search: blocks, both halves, and what has been accepted."""

    def __init__(self, system: System, split: Mapping[str, bool] | None = None) -> None:
        self.system = system
        self.split = split or {}  # BatchNorms whose scale may go elsewhere if they stay, and whether their shift may
        self.blocks = Blocks(system)
        self.sizes = [len(cells) for cells in self.blocks.cells]
        self.scales = Scales(len(self.sizes))
        self.shifts = Shifts()
        self.held: list[set[Reason]] = [set() for _ in self.sizes]  # why a block is rigid or without shift
        self.needed = [False] * len(self.sizes)  # whether a law, or a reader that stays, relies on a block's own value
        self._links: list[tuple[int, ...]] = []  # blocks that one equation of the laws joins
        self._put_laws()
        self.members = [_Member(c, self.blocks.pieces((c.x, c.y))) for c in self._settled(system.candidates)]
        self._count_needs()
        self._groups: dict[int, list[_Member]] | None = None
        self._component: list[int] = []
        self._passing = list(system.passing)
        self._balanced: set[int] = set()  # blocks whose free classes go in the middle of their scales
        self._note_base()

    def _put_laws(self) -> None:
        for tie in self.system.ties:
            for piece in self.blocks.pieces((tie.a, tie.b)):
                self._links.append(piece.blocks)
                a, b = piece.blocks
                for block in piece.blocks:
                    if block >= 0:
                        self.needed[block] = True
                if a >= 0 and b >= 0:
                    self.scales.union(a, b, None)
                    if tie.shared:
                        self.scales.mark_shared(a)
                elif max(a, b) >= 0:
                    self.scales.ground(max(a, b), 1.0)
                    self.held[max(a, b)].add(self._ground_reason(tie.a, tie.b, piece))
        for row in self.system.rows:
            arrays = [cells for _, cells in row.terms]
            for piece in self.blocks.pieces(arrays):
                self._links.append(piece.blocks)
                both = list(zip(piece.blocks, row.terms, strict=True))
                at = 0 if piece.index is None else int(piece.index[0])
                why = frozenset([REASONS[int(cells[at])] for block, (_, cells) in both if block < 0])
                self.shifts.add([(block, factor) for block, (factor, _) in both if block >= 0], 0.0, why)
        for cells, reason in self.system.rigid:
            for block in self.blocks.of(cells):
                self.needed[block] = True
                self.held[block].add(reason)
                self.scales.ground(block, 1.0)
        for cells, reason in self.system.pinned:
            for block in self.blocks.of(cells):
                self.needed[block] = True
                self.shifts.add([(block, 1.0)], 0.0, frozenset((reason,)))
        for cells in self.system.positive:
            for block in self.blocks.of(cells):
                self.needed[block] = True
                self.scales.positive(block)
        for cells in self.system.read:
            for block in self.blocks.of(cells):
                self.needed[block] = True
        for cells in self.system.made:
            for block in self.blocks.of(cells):
                self.scales.add_made(block, 1)

    def _count_needs(self) -> None:
        """A block that two affines read is needed as well: what one of them takes out of it the other still wants."""
        reads = [0] * len(self.sizes)
        for member in self.members:
            for piece in member.pieces:
                if piece.blocks[0] >= 0:
                    reads[piece.blocks[0]] += 1
        for block, count in enumerate(reads):
            if self.needed[block] or count != 1:
                self.scales.add_needed(block, 1)

    def _ground_reason(self, a: Cells, b: Cells, piece: Piece) -> Reason:
        at = 0 if piece.index is None else int(piece.index[0])
        return REASONS[int(min(a[at], b[at]))]

    def _settled(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Candidates with dead channels written as such: `max(0·x + t, 0)` with `t ≤ 0` is `max(0·x + 0, 0)`."""
        result = []
        for c in candidates:
            zero = c.scale == 0
            if c.relu_only and zero.any():
                c = replace(c, shift=np.where(zero & (c.shift <= 0), 0.0, c.shift))
            result.append(c)
        return result

    def _note_base(self) -> None:
        """For each class as the laws alone make it, why it is rigid."""
        reasons: dict[int, set[Reason]] = {}
        for block, held in enumerate(self.held):
            if held:
                reasons.setdefault(self.scales.find(block)[0], set()).update(held)
        for member in self.members:
            sides: tuple[set[Reason], set[Reason]] = (set(), set())
            for piece in member.pieces:
                for side, block, cells in zip(
                    sides, piece.blocks, (member.candidate.x, member.candidate.y), strict=True
                ):
                    if block >= 0:
                        side.update(reasons.get(self.scales.find(block)[0], ()))
                    else:
                        side.add(REASONS[int(cells[0 if piece.index is None else piece.index[0]])])
            member.base = (frozenset(sides[0]), frozenset(sides[1]))

    def solve(self, excluded: Mapping[str, Reason]) -> Solution:
        """Search every component, then write down the units."""
        accepted: list[_Member] = []
        moved: list[_Member] = []
        refused: dict[str, Reason] = {}
        start = self._mark()
        for component in self._components().values():
            able = [m for m in component if m.name not in excluded]
            refused.update({m.name: excluded[m.name] for m in component if m.name in excluded})
            taken, left = self._search(able)
            accepted += taken
            refused.update(left)
            kept = set(component) - set(taken)
            for member in component:
                op = member.candidate.op
                if member in kept and (member.name in self.split or not (op.batch_norm or op.within)):
                    moved += self._keep_single(member, member.name in excluded)
        solution = self._write_down(accepted, refused, moved)
        self._rollback(start)
        return solution if self._passes(solution) else self.solve(excluded)

    def _passes(self, solution: Solution) -> bool:
        """Whether every constant that a ReLU must not clip is left positive; what is not loses its shift for good."""
        passing: list[tuple[Cells, Array]] = []
        clipped: list[tuple[Cells, Array]] = []
        for cells, constant in self._passing:
            fits = np.all(solution.shift[cells] <= constant * (1 + ROUNDING))
            (passing if fits else clipped).append((cells, constant))
        for block in {block for cells, _ in clipped for block in self.blocks.of(cells)}:
            self.shifts.add([(block, 1.0)], 0.0, frozenset((Reason.NONLINEAR,)))
        self._passing = passing
        return not clipped

    def components(self) -> dict[int, list[Candidate]]:
        """Candidates that can influence one another, by the number of their component."""
        return {number: [member.candidate for member in group] for number, group in self._components().items()}

    def component_of(self, cells: Cells) -> int | None:
        """The component that some cells belong to; None if no candidate can influence them."""
        self._components()
        blocks = self.blocks.of(cells)
        return self._component[min(blocks)] if blocks else None

    def _components(self) -> dict[int, list[_Member]]:
        if self._groups is None:
            self._groups = self._find_components()
        return self._groups

    def _find_components(self) -> dict[int, list[_Member]]:
        parent = list(range(len(self.sizes)))

        def find(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        def join(blocks: Iterable[int]) -> None:
            first = -1
            for block in blocks:
                if block < 0:
                    continue
                root = find(block)
                if first < 0:
                    first = root
                elif root != first:
                    parent[root] = first

        for blocks in self._links:
            join(blocks)
        for member in self.members:
            join(block for piece in member.pieces for block in piece.blocks)
        groups: dict[int, list[_Member]] = {}
        for number, member in enumerate(self.members):
            anchors = [block for piece in member.pieces for block in piece.blocks if block >= 0]
            groups.setdefault(find(anchors[0]) if anchors else -1 - number, []).append(member)
        self._component = [find(block) for block in range(len(self.sizes))]
        return groups

    def _search(self, members: list[_Member]) -> tuple[list[_Member], dict[str, Reason]]:
        """Accept as many of a component's affines as can be."""
        start = self._mark()
        order = sorted(members, key=lambda m: m.weight, reverse=True)
        taken, refused = self._greedy(order)
        if not refused:
            return taken, refused
        worth = _worth(taken)
        if len(members) <= EXACT:
            self._rollback(start)
            best = self._exact(order, taken)
            self._rollback(start)
            if _worth(best) > worth:
                order = best + [m for m in order if m not in best]
            taken, refused = self._greedy(order)
            return taken, refused
        while len(taken) * len(members) <= EXCHANGE_STEPS:
            better = self._exchange(start, taken, [m for m in order if m.name in refused])
            if better is None:
                break
            self._rollback(start)
            taken, refused = self._greedy(better)
        return taken, refused

    def _greedy(self, order: list[_Member]) -> tuple[list[_Member], dict[str, Reason]]:
        taken: list[_Member] = []
        refused: dict[str, Reason] = {}
        for member in order:
            reason = self._accept(member)
            if reason is None:
                taken.append(member)
            else:
                refused[member.name] = reason
        return taken, refused

    def _exact(self, order: list[_Member], best: list[_Member]) -> list[_Member]:
        """The best set there is, by depth-first search; starts and ends at the component's base state."""
        best_worth = _worth(best)
        chosen: list[_Member] = []

        def descend(at: int) -> None:
            nonlocal best, best_worth
            if _worth(chosen + order[at:]) <= best_worth:
                return
            if at == len(order):
                best, best_worth = list(chosen), _worth(chosen)
                return
            mark = self._mark()
            if self._accept(order[at]) is None:
                chosen.append(order[at])
                descend(at + 1)
                chosen.pop()
            self._rollback(mark)
            descend(at + 1)

        descend(0)
        return best

    def _exchange(self, start: tuple[int, int], taken: list[_Member], left: list[_Member]) -> list[_Member] | None:
        """An order of acceptance that gives up one affine for two or more, or None."""
        worth = _worth(taken)
        for out in taken:
            self._rollback(start)
            trial = [m for m in taken if m is not out]
            gained, _ = self._greedy(trial + left + [out])
            if _worth(gained) > worth:
                return gained + [m for m in [*left, out] if m not in gained]
        self._rollback(start)
        self._greedy(taken)
        return None

    def _mark(self) -> tuple[int, int]:
        return self.scales.mark(), self.shifts.mark()

    def _rollback(self, mark: tuple[int, int]) -> None:
        self.scales.rollback(mark[0])
        self.shifts.rollback(mark[1])

    def _accept(self, member: _Member) -> Reason | None:
        """Remove an affine, or leave everything as it was and say why not."""
        mark = self._mark()
        reason = self._accept_pieces(member)
        if reason is not None:
            self._rollback(mark)
        return reason

    def _accept_pieces(self, member: _Member) -> Reason | None:
        candidate = member.candidate
        if not member.finite:
            return Reason.OVERFLOW
        for piece, s, t in member.parts:
            x, y = piece.blocks
            self.scales.add_made(y, -1)
            invertible = every(s)
            if invertible:
                reason = self.scales.ground(y, s) if x < 0 else self._in_ratio(x, y, s)
                if reason is not None:
                    return self._explain(member, reason)
            elif x >= 0 and self.scales.sink(x) is None:
                continue
            elif self.scales.ground(y, 0.0) is not None:
                return Reason.ZERO_GAMMA
            terms = [(y, 1.0)] if x < 0 else [(y, 1.0), (x, -s)]
            why: frozenset[object] = frozenset((candidate.op.name,))
            if x < 0:
                why |= {REASONS[int(candidate.x[0 if piece.index is None else piece.index[0]])]}
            clash = self.shifts.add(terms, t, why)
            if clash is not None:
                return self._explain_shift(clash, candidate.op.name) if invertible else Reason.ZERO_GAMMA
        return None

    def _in_ratio(self, x: int, y: int, s: Lanes) -> Reason | None:
        """Demand `S_y = s·S_x` of two blocks."""
        return self.scales.union(x, y, s if isinstance(s, np.ndarray) else None if s == 1 else np.asarray([s]))

    def _keep_single(self, member: _Member, excluded: bool) -> list[_Member]:
        """Let an affine that stays be one operator, a multiplication or an addition, where there is room for it.

        Returns:
            The affine, if it no longer multiplies.
        """
        candidate = member.candidate
        if not member.finite or not candidate.scale.all():
            return []
        steps = [self._accept_scales, self._accept_shifts]
        if candidate.op.batch_norm:
            steps = steps if self.split[member.name] and not excluded else steps[:1]
        elif not candidate.shift.any():
            steps.reverse()
        for step in steps:
            mark = self._mark()
            if step(member):
                return [member] if step == self._accept_scales else []
            self._rollback(mark)
        return []

    def _accept_scales(self, member: _Member) -> bool:
        """Demand that an affine does not multiply."""
        for piece, s, _ in member.parts:
            x, y = piece.blocks
            if (self.scales.ground(y, s) if x < 0 else self._in_ratio(x, y, s)) is not None:
                return False
        return True

    def _accept_shifts(self, member: _Member) -> bool:
        """Demand that an affine does not add."""
        for piece, s, t in member.parts:
            x, y = piece.blocks
            terms = [(y, 1.0)] if x < 0 else [(y, 1.0), (x, -s)]
            if self.shifts.add(terms, t, frozenset((member.name,))) is not None:
                return False
        return True

    def _explain(self, member: _Member, reason: Reason) -> Reason:
        """A scale that is known on both sides: the user is told what fixes it."""
        if reason is not Reason.SHARED_UNIT:
            return reason
        before, after = member.base
        if not before or not after:
            return reason
        return next((r for r in PRECEDENCE if r in before | after), reason)

    def _explain_shift(self, clash: frozenset[object], name: str) -> Reason:
        """Equations that contradict each other: the user is told the law, or that other affines stand in the way."""
        laws = {label for label in clash if isinstance(label, Reason)}
        if any(isinstance(label, str) and label != name for label in clash):
            laws.add(Reason.SHARED_UNIT)
        return next((r for r in PRECEDENCE if r in laws), Reason.IO)

    def _write_down(self, accepted: list[_Member], refused: dict[str, Reason], moved: list[_Member]) -> Solution:
        scale, shift = np.ones(self.blocks.size), np.zeros(self.blocks.size)
        for block, value in self._class_scales([*accepted, *moved]).items():
            scale[self.blocks.cells[block]] = value
        for block, value in self.shifts.solve().items():
            shift[self.blocks.cells[block]] = value
        scale[np.abs(scale - 1.0) <= 1e-12] = 1.0
        with np.errstate(divide="ignore"):
            inverse = np.where(scale == 0, 0.0, 1.0 / scale)
        offset = np.where(shift == 0, 0.0, -shift * inverse)
        for x, y, t in self._sunk(accepted):
            into, out = self.blocks.cells[x], self.blocks.cells[y]
            scale[into], shift[into], inverse[into] = 0.0, 0.0, 0.0
            offset[into] = inverse[out] * t + offset[out]
        return Solution(frozenset(m.name for m in accepted), refused, scale, shift, inverse, offset)

    def _sunk(self, accepted: list[_Member]) -> list[tuple[int, int, Lanes]]:
        """Blocks that are only written, each with what its one reader makes of it and the shift; last first."""
        found = []
        for member in accepted:
            for piece, _, t in member.parts:
                x, y = piece.blocks
                if x >= 0 and self.scales.is_sunk(x):
                    found.append((x, y, t))
        return sorted(found, key=lambda item: item[1], reverse=True)

    def _class_scales(self, accepted: list[_Member]) -> dict[int, Lanes]:
        """Scales other than 1; a class that nothing grounds is put in the unit that leaves most weights alone."""
        result: dict[int, Lanes] = {}
        roots: dict[int, list[tuple[int, Array | None]]] = {}
        touched = {b for m in accepted for piece in m.pieces for b in piece.blocks if b >= 0}
        live = {self.scales.find(block)[0] for block in touched}
        for block in range(len(self.sizes)) if live else ():
            root, ratio = self.scales.find(block)
            if root in live:
                roots.setdefault(root, []).append((block, ratio))
        for root, members in roots.items():
            state = self.scales.classes[root]
            if state.absolute is None and all(ratio is None for _, ratio in members):
                continue
            base = state.absolute if state.absolute is not None else self._free_scale(root, members)
            for block, ratio in members:
                result[block] = base if ratio is None else base * ratio
        return result

    def _free_scale(self, root: int, members: list[tuple[int, Array | None]]) -> Array:
        """The root scale at which the heaviest set of blocks keeps scale 1."""
        weights = self._block_weights
        votes: dict[bytes, float] = {}
        ratios: dict[bytes, Array] = {}
        ones = np.ones(self.sizes[root])
        values = [ones if ratio is None else ratio for _, ratio in members]
        for (block, _), value, rounded in zip(members, values, np.round(values, 12), strict=True):
            key = rounded.tobytes()
            votes[key] = votes.get(key, 0.0) + weights.get(block, 0.0)
            ratios.setdefault(key, value)
        base = 1.0 / ratios[max(votes, key=lambda key: votes[key])]
        if any(block in self._balanced for block, _ in members):
            stored = [value for (block, _), value in zip(members, values, strict=True) if block in self._stored]
            base = _middle(stored or values)
        sign = self.scales.classes[root].sign
        return base if sign is None else np.where(sign == 0, base, np.abs(base) * sign)

    def balance(self, view: Sequence[Cells]) -> bool:
        """From now on put the free classes of these cells in the middle of their scales, for weights of little range.

        Returns:
            Whether that was not asked before.
        """
        asked = {block for cells in view for block in self.blocks.of(cells)} - self._balanced
        self._balanced |= asked
        return bool(asked)

    @cached_property
    def _stored(self) -> set[int]:
        """Blocks in whose unit something is stored that does not vanish."""
        affines = {member.name for member in self.members}
        views = (view for name, view in self.system.views.items() if name not in affines)
        return {block for view in views for cells in view for block in self.blocks.of(cells)}

    @cached_property
    def _block_weights(self) -> dict[int, float]:
        """How many stored weights a change of a block's scale rewrites."""
        weights: dict[int, float] = {}
        for name, views in self.system.views.items():
            for cells in views:
                for block in self.blocks.of(cells):
                    weights[block] = weights.get(block, 0.0) + self.system.weights.get(name, 1)
        return weights


def _middle(ratios: Sequence[Array]) -> Array:
    """The power of two at which the largest and the smallest of some ratios are equally far from 1."""
    exponents = [np.log2(np.abs(ratio)) for ratio in ratios]
    low, high = (reduce(pick, exponents) for pick in (np.minimum, np.maximum))
    middle: Array = 2.0 ** -np.round((low + high) / 2)
    return middle


def _worth(members: Iterable[_Member]) -> tuple[int, int, float]:
    """How good a set is: BatchNorms gone, affines gone, activation traffic saved."""
    norms = count = 0
    gain = 0.0
    for member in members:
        norms += member.weight[0]
        count += 1
        gain += member.candidate.gain
    return norms, count, gain
