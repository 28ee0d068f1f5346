"""Follow two graphs side by side: each value before is written in values after, until the outputs are reached.

    before:  x ──Conv──BN──┐                     linear operators compose forms (`source.meaning`)
                           Relu ── …             anything else must be one operator after, by its law (`laws`)
    after:   x ──Conv──────Relu ── …             whose result is the next value to write forms in

No plan and no units are given; the units follow from the weights of both models. A form that stands for a single value
after is written in that value at once, so that forms stay short. Where a law needs an exact unit (a ReLU: the same
zero), that unit is known exactly from there on, so that bounds do not grow along a residual stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.certificate.applied import applied
from bnfold.certificate.bounds import Bound
from bnfold.certificate.fixed import Fixed
from bnfold.certificate.forms import Form, Mismatch, Unit, plain
from bnfold.certificate.laws import ANY, OWN_CONSTANTS, law_of
from bnfold.certificate.linear import average
from bnfold.certificate.meanings import is_linear, meaning
from bnfold.certificate.near import FURTHEST, demand_as_large, needed, readers, same_attributes, shared_sizes, trimmed
from bnfold.certificate.pair import NoFeature, Pair, agree, alike, demand_same, rigid
from bnfold.certificate.sides import Of, Side, rank_of, sizes_of
from bnfold.certificate.taps import Taps
from bnfold.certificate.units import nothing, same_constants, silent, unit_in
from bnfold.frontends.context import ONNX_DOMAINS, bodies

ONCE = 0.5  # units in the last place that one correct rounding may take
LOWERED = 3  # how often a form is written in what lies further back
MOST_CANDIDATES = 60


@dataclass(frozen=True)
class Problem:
    """Something that was not shown.

    Attributes:
        name: The operator or output before.
        words: Why not.
        differs: Whether numbers disagree; otherwise there was nothing to compare it with.
    """

    name: str
    words: str
    differs: bool


@dataclass(frozen=True, eq=False)
class Lost:
    """Stands for a value before that has no form: it is nothing else, and matters where its weight is not 0.

    Attributes:
        problem: Why it has none.
    """

    problem: Problem


@dataclass
class Findings:
    """What a walk found.

    Attributes:
        operators: Operators that were shown to agree.
        problems: What was not shown.
        assumed: Names of values that were taken to be the same because their operators were not understood.
    """

    operators: int = 0
    problems: list[Problem] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)


class Walk:
    """One graph before against one after.

    Args:
        before: The graph before.
        after: The graph after.
        labels: Names of the operators before.
        ulps: By how many units in the last place stored numbers may be off.
        outer: What values of enclosing graphs are.
        findings: Where findings are noted.
    """

    def __init__(
        self,
        before: ir.Graph,
        after: ir.Graph,
        labels: Mapping[ir.Node, str],
        ulps: float,
        findings: Findings,
        outer: Mapping[ir.Value, Form] | None = None,
    ) -> None:
        self.before, self.after, self.labels = before, after, labels
        self.findings, self.ulps = findings, ulps
        self.is_body = outer is not None
        self.new = Side(ulps)
        self.fixed = Fixed(self.new)
        self.new.fixed = self.fixed.of
        self.old = Side(max(ulps - ONCE, 0.0) / 4, self.fixed.of, is_before=True)
        self.fixed.read(after)
        self.forms: dict[ir.Value, Form] = dict(outer or {})
        self._doubtful: set[ir.Value] = set()  # what was assumed, and what was made of it
        self._sizes = shared_sizes(before, after)
        self._nodes = {node.name: node for node in after if node.name}
        self._values = {v.name: v for node in after for v in node.outputs if v.name}
        self._by_type: dict[str, list[ir.Node]] = {}
        for node in after:
            self._by_type.setdefault(node.op_type, []).append(node)

    def run(self) -> None:
        """Follow the graphs from the inputs to the outputs."""
        named = {value.name: value for value in self.after.inputs}
        for i, value in enumerate(self.before.inputs):
            other = named.get(value.name)
            if self.is_body:  # whose inputs go by their places
                other = self.after.inputs[i] if i < len(self.after.inputs) else None
            if not _same_default(value, other):
                words = "what stands in its place where a caller leaves it out differs"
                self.findings.problems.append(Problem(value.name or "", words, True))
            if other is not None:
                self.forms[value] = Form.of(other, 0 if value.shape is None else len(value.shape))
        wanted = needed(self.before)
        for node in self.before:
            if node in wanted:
                self._follow(node)
        for i, value in enumerate(self.before.outputs):
            self._finish(value, self.after.outputs[i] if i < len(self.after.outputs) else None)

    def _finish(self, value: ir.Value, other: ir.Value | None) -> None:
        """An output must be the same value."""
        name = value.name or ""
        if other is None:
            self.findings.problems.append(Problem(name, "the output is missing after", True))
            return
        one, two = self.old.array(value), self.new.array(other)
        if one is not None or two is not None:
            if one is None or two is None or not np.array_equal(one, two):
                self.findings.problems.append(Problem(name, "the constant that is handed out differs", True))
            return
        try:
            demand_as_large(value, other)
            demand_same(self.unit(self.form(value), other), self.fixed.of(other), "the output")
        except Mismatch as mismatch:
            own = Problem(name, str(mismatch), mismatch.differs and value not in self._doubtful)
            self._report(self._origins([value]) or [own])

    def form(self, value: ir.Value) -> Form:
        """What a value before is.

        Raises:
            Mismatch: That is not known.
        """
        known = self.forms.get(value)
        if known is None:
            raise Mismatch("what it reads has no counterpart after")
        return known

    def _follow(self, node: ir.Node) -> None:
        """Write the results of an operator in values after."""
        if not self._doubtful.isdisjoint(v for v in node.inputs if v is not None):
            self._doubtful.update(node.outputs)
        try:
            if not is_linear(node) or not self._linear(node):
                self._same_operator(node)
            self.findings.operators += 1
        except Mismatch as mismatch:
            self._fail(node, mismatch)

    def _fail(self, node: ir.Node, mismatch: Mismatch) -> None:
        """Note that an operator was not shown to agree, and go on with what has its results' names after."""
        origins = self._origins(node.inputs)
        certain = self._doubtful.isdisjoint(node.outputs)
        own = Problem(self.labels.get(node, node.op_type), str(mismatch), mismatch.differs and certain)
        for value in node.outputs:
            other = self._values.get(value.name or "")
            going_on = not is_linear(node) and (origins or not mismatch.differs)
            if other is not None and going_on and value.shape is not None:
                self.forms[value] = Form.of(other, len(value.shape))
                self.findings.assumed.append(value.name or "")
                self._doubtful.add(value)
                self._report(origins or [own])
            else:
                rank = 0 if value.shape is None else len(value.shape)
                self.forms[value] = Form.of(Lost(origins[0] if origins else own), rank)

    def _origins(self, values: Iterable[ir.Value | None]) -> list[Problem]:
        """Why values that are read have no form."""
        forms = [self.forms[value] for value in values if value is not None and value in self.forms]
        return [
            key.problem
            for form in forms
            for key, term in form.terms.items()
            if isinstance(key, Lost) and not nothing(term).all()
        ]

    def _report(self, problems: Iterable[Problem]) -> None:
        """Note problems, each once."""
        self.findings.problems += [
            problem for problem in dict.fromkeys(problems) if problem not in self.findings.problems
        ]

    def _linear(self, node: ir.Node) -> bool:
        """Compose a linear operator; False where it is none of these forms."""
        try:
            form = meaning(self.old, node, self.form)
        except Mismatch as mismatch:
            try:
                self._same_operator(node)
            except Mismatch:
                raise mismatch from None
            return True
        if form is None:
            return False
        y = node.outputs[0]
        self.forms[y] = form
        self._ground(node, y)
        return True

    def _ground(self, node: ir.Node, y: ir.Value) -> None:
        """Write a form in a single value after, if there is one; a unit only in what is in its place or the same."""
        form = self.forms[y]
        for candidate in self._candidates(node, form):
            if not is_linear(candidate):
                continue
            try:
                demand_as_large(y, candidate.outputs[0])
                unit = self.unit(form, candidate.outputs[0])
            except Mismatch:
                continue
            twin = unit.is_plain and [v for v in candidate.inputs if self.new.is_feature(v)] == [*form.terms]
            named = candidate.outputs[0].name == y.name or (candidate.name == node.name and node.op_type in AFFINE)
            if form.single is None or named or twin:
                self.forms[y] = unit.form
                return

    def _candidates(self, node: ir.Node, form: Form) -> Iterator[ir.Node]:
        """Operators after that may be this one: by its name, by its result's, then near what it reads."""
        seen: set[ir.Node] = set()
        named = self._nodes.get(node.name or "")
        producer = self._values.get(node.outputs[0].name or "") if node.outputs else None
        for found in (named, None if producer is None else producer.producer()):
            if found is not None and found not in seen:
                seen.add(found)
                yield found
        for i, found in enumerate(readers(form.terms)):
            if i >= MOST_CANDIDATES:
                return
            if found not in seen:
                seen.add(found)
                yield found

    def unit(self, form: Form, value: ir.Value, *, losing: bool = False) -> Unit:
        """The unit in which a value after shows a form; `losing`, without channels that nothing may read then.

        Raises:
            Mismatch: It does not.
        """
        first: Mismatch | None = None
        for _ in range(LOWERED):
            target = self._expanded(value, set(form.terms), FURTHEST)
            if target is None and silent(form).all():  # a constant is one in any value
                target = Form.of(value, form.rank)
            try:
                if target is None:
                    raise Mismatch("it reads something else after")
                return unit_in(form, target, value, self.fixed.of, losing=losing)
            except Mismatch as mismatch:
                first = first or mismatch
                lower = self._lowered(form)
            if lower is None:
                break
            form = lower
        assert first is not None
        raise first

    def _lowered(self, form: Form) -> Form | None:
        """The same form with what linear operators after make written in what those read; None where none does.

        Where some of its values are made of others of them, only those are.
        """
        made = {value: inner for value in form.terms if (inner := self._made(value, form)) is not None}
        within = {value: inner for value, inner in made.items() if inner.terms.keys() <= form.terms.keys()}
        made = within or made
        if not made:
            return None
        total = Form({value: term for value, term in form.terms.items() if value not in made}, form.const, form.dead)
        try:
            for inner in made.values():
                total = total.plus(inner)
        except Mismatch:
            return None
        return total

    def _made(self, value: Any, form: Form) -> Form | None:
        """What a form's term of a value is in what a linear operator after makes that of; None for any other value."""
        node, term = value.producer() if isinstance(value, ir.Value) else None, form.terms[value]
        if node is None or not self._composes(node):
            return None
        zero = Bound.filled(0.0, form.rank)
        try:
            inner = self._composed(node, lambda x: Form.of(x, rank_of(x)))
            if inner is None:
                return None
            return applied(self.new, inner, term, zero) if isinstance(term, Taps) else inner.scaled(term, zero)
        except Mismatch:
            return None

    def _expanded(self, value: ir.Value, stop: set[Any], budget: int) -> Form | None:
        """What a value after is in others; None where it is not made of them by linear operators."""
        rank = 0 if value.shape is None else len(value.shape)
        if value in stop:
            return Form.of(value, rank)
        known = self.fixed.of(value)
        if known is not None and np.isfinite(known.mid).all():
            return Form({value: Bound.filled(0.0, rank)}, known)
        node = value.producer()
        if node is None or budget == 0 or not self._composes(node):
            return None
        inner: dict[ir.Value, Form] = {}
        for x in node.inputs:
            if x is not None and self.new.is_feature(x):
                found = self._expanded(x, stop, budget - 1)
                if found is None:
                    return None
                inner[x] = found
        try:
            return self._composed(node, inner.__getitem__)
        except (KeyError, Mismatch):
            return None

    def _composes(self, node: ir.Node) -> bool:
        """Whether an operator after may be a linear one, which an average over a window is as well."""
        return node.op_type == "AveragePool" or is_linear(node)

    def _composed(self, node: ir.Node, of: Of) -> Form | None:
        """What a linear operator after makes of forms."""
        return average(self.new, node, of) if node.op_type == "AveragePool" else meaning(self.new, node, of)

    def _same_operator(self, node: ir.Node) -> None:
        """Find the operator after that is this one."""
        if node.op_type in DRAWING and node.domain in ONNX_DOMAINS:
            raise Mismatch("it draws random numbers")
        mismatches: list[Mismatch] = []
        for candidate in self._alike(node):
            try:
                units = self._operands(node, candidate)
                pair = Pair(node, candidate, self.old, self.new, self.fixed.of)
                law = law_of(node) if node.domain in ONNX_DOMAINS else rigid  # of another domain, nothing else is known
                try:
                    results = law(pair, units)
                except NoFeature:
                    results = rigid(pair, units)
                self._bodies(node, candidate)
            except Mismatch as mismatch:
                named = candidate.name == node.name or candidate.outputs[0].name == node.outputs[0].name
                mismatches.append(mismatch if named else Mismatch(str(mismatch)))
                continue
            for value, unit in zip(node.outputs, results, strict=False):
                self.forms[value] = same_constants(unit, self.fixed.of(unit.value)).form
            self._settle(node, units)
            return
        if node.op_type == "AveragePool" and self._as_convolution(node):
            return
        differing = [m for m in mismatches if m.differs]
        raise (differing or mismatches or [Mismatch(f"no {node.op_type} after reads the same")])[0]

    def _as_convolution(self, node: ir.Node) -> bool:
        """An average that has become part of a convolution."""
        form = average(self.old, node, self.form)
        if form is None:
            return False
        self.forms[node.outputs[0]] = form
        self._ground(node, node.outputs[0])
        return True

    def _alike(self, node: ir.Node) -> Iterator[ir.Node]:
        """Operators after of the same kind, likely ones first."""
        forms = [self.forms[v] for v in node.inputs if v is not None and v in self.forms]
        near = self._candidates(node, forms[0]) if forms else iter(self._by_type.get(node.op_type, ()))
        for candidate in near:
            if (candidate.op_type, candidate.domain) == (node.op_type, node.domain) and same_attributes(
                node, candidate
            ):
                yield candidate

    def _operands(self, node: ir.Node, candidate: ir.Node) -> list[Unit | None]:
        """The unit of every operand that is computed; constants must be the same."""
        mine, theirs = trimmed(node.inputs), trimmed(candidate.inputs)
        own = OWN_CONSTANTS.get(node.op_type, ()) if node.domain in ONNX_DOMAINS else ()
        if len(mine) != len(theirs) and (not own or own is ANY):
            raise Mismatch("it has other operands after")
        units: list[Unit | None] = []
        for i, value in enumerate(mine):
            other = theirs[i] if i < len(theirs) else None
            if value is None or not self.old.is_feature(value):
                if i not in own and not self._same_constant(node, candidate, i):
                    raise Mismatch(f"operand {i} is another constant after", differs=value is not None)
                units.append(None)
                continue
            if other is None or not self.new.is_feature(other):
                raise Mismatch(f"operand {i} is constant after")
            if node.op_type in ("Shape", "Size") and self._same_shape(value, other):
                units.append(plain(other, rank_of(other)))
                continue
            demand_as_large(value, other)
            form = self.form(value)
            try:
                units.append(self.unit(form, other))
            except Mismatch:
                units.append(self.unit(form, other, losing=True))
        return units

    def _same_shape(self, value: ir.Value, other: ir.Value) -> bool:
        """Whether a value before and one after have the same shape: in numbers, or in names that inputs give sizes."""
        mine, theirs = (None if v.shape is None else sizes_of(v) for v in (value, other))
        return mine is not None and mine == theirs and all(isinstance(n, int) or n in self._sizes for n in mine)

    def _same_constant(self, node: ir.Node, candidate: ir.Node, index: int) -> bool:
        """Whether a constant operand says the same."""
        one, two = (n.inputs[index] if index < len(n.inputs) else None for n in (node, candidate))
        if agree(self.old, self.new, one, two):
            return True
        target = node.op_type in ("Reshape", "Expand") and index == 1 and self.old.array(one) is not None
        return target and self._same_shape(node.outputs[0], candidate.outputs[0])  # what counts is what results

    def _bodies(self, node: ir.Node, candidate: ir.Node) -> None:
        """Bodies of control flow are graphs of their own, which read the same values."""
        mine, theirs = bodies(node), bodies(candidate)
        if len(mine) != len(theirs):
            raise Mismatch("it has other bodies after")
        for one, two in zip(mine, theirs, strict=True):
            inner = Findings()
            Walk(one, two, self.labels, self.ulps, inner, self.forms).run()
            self.findings.operators += inner.operators
            self.findings.problems += inner.problems
            self.findings.assumed += inner.assumed

    def _settle(self, node: ir.Node, units: Iterable[Unit | None]) -> None:
        """What a law has shown of its operands is known from here on: the same zero, or the same value."""
        for value, unit in zip(node.inputs, units, strict=False):
            if value is None or unit is None or unit.dead is not None:
                continue
            if unit.is_plain:
                self._pin(value, unit, Bound.filled(1.0, unit.scale.rank), exact=True)
            elif node.op_type in ZERO_KEEPING and unit.shift.holds(0.0).all():
                self._pin(value, unit, unit.scale, exact=False)

    def _pin(self, value: ir.Value, unit: Unit, scale: Bound, *, exact: bool) -> None:
        """Note that a value is this scale, without a shift, and what that says of what an affine made it of.

        Args:
            value: The value before.
            unit: Its unit.
            scale: Its scale.
            exact: Whether the scale is known better than from the value's form. Else the form's is kept where it is
                this one; a constant channel may have been given another scale, to which another shift belongs.
        """
        shift = Bound.filled(0.0, unit.shift.rank)
        here = np.ones((1,) * shift.rank, dtype=bool)
        while True:
            form = self.forms.get(value)
            if form is None or form.single is None or form.single[0] is not unit.value:
                return
            own = form.single[1]
            here = here if exact else here & (own - scale).holds(0.0)
            known = own.where(here, scale) if exact else own
            self.forms[value] = Form({unit.value: known}, form.const.where(here, shift))
            node = value.producer()
            made = None if node is None else self._affine(node)
            if made is None:
                return
            value, factor, offset = made
            if not (np.abs(factor.mid) > 0).all() or factor.rank != shift.rank:
                return
            back = factor.inverse()
            shift, scale = (shift - offset) * back, scale * back

    def _affine(self, node: ir.Node) -> tuple[ir.Value, Bound, Bound] | None:
        """Input, scale and shift of an operator before that multiplies and adds constants; None for any other."""
        features = [v for v in node.inputs if v is not None and self.old.is_feature(v)]
        if len(features) != 1 or node.op_type not in AFFINE or node.domain not in ONNX_DOMAINS:
            return None
        x = features[0]
        try:
            form = meaning(self.old, node, lambda v: Form.of(v, rank_of(v)))
        except Mismatch:
            return None
        if form is None or form.single is None or form.dead is not None:
            return None
        return x, form.single[1], form.const


def _same_default(value: ir.Value, other: ir.Value | None) -> bool:
    """Whether two inputs stand for the same numbers where a caller leaves them out, or may not be left out."""
    mine, theirs = value.const_value, None if other is None else other.const_value
    if mine is None or theirs is None:
        return mine is theirs
    return alike(mine.numpy(), theirs.numpy())


DRAWING = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
ZERO_KEEPING = ("Abs", "Clip", "LeakyRelu", "PRelu", "Relu")
AFFINE = ("Add", "BatchNormalization", "Div", "Dropout", "Identity", "Mul", "Neg", "Sub")
