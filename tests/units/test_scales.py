"""Scale classes against the linear system they stand for: log|S| in real numbers, signs by trying them all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from handmade import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.scales import Scales

BLOCKS, LANES = 5, 2
Fact = tuple[str, int, int, Array]  # kind, block, other block, value


def put(scales: Scales, fact: Fact) -> Reason | None:
    kind, a, b, value = fact
    if kind == "union":
        return scales.union(a, b, value)
    if kind == "same":
        return scales.union(a, b, None)
    if kind == "ground":
        return scales.ground(a, value)
    return scales.positive(a)


def possible(facts: Sequence[Fact]) -> tuple[bool, bool]:
    """Whether magnitudes exist that obey all facts, and whether signs do."""
    sizes, signs = [], []
    for lane in range(LANES):
        rows: list[tuple[Array, float]] = []
        equal: list[tuple[int, int, int]] = []
        known: dict[int, set[int]] = {}
        for kind, a, b, value in facts:
            row = np.zeros(BLOCKS)
            if kind in ("union", "same"):
                ratio = value[lane] if kind == "union" else 1.0
                row[b] += 1
                row[a] -= 1
                rows.append((row, np.log2(abs(ratio))))
                equal.append((a, b, int(np.sign(ratio))))
            elif kind == "ground":
                row[a] = 1
                rows.append((row, np.log2(abs(value[lane]))))
                known.setdefault(a, set()).add(int(np.sign(value[lane])))
            else:
                known.setdefault(a, set()).add(1)
        left = np.array([row for row, _ in rows]).reshape(-1, BLOCKS)
        right = np.array([value for _, value in rows])
        both = np.linalg.matrix_rank(np.column_stack([left, right])) if rows else 0
        sizes.append(not rows or np.linalg.matrix_rank(left) == both)
        signs.append(
            any(
                all(choice[b] == choice[a] * sign for a, b, sign in equal)
                and all({choice[block]} == asked for block, asked in known.items())
                for choice in itertools.product((-1, 1), repeat=BLOCKS)
            )
        )
    return all(sizes), all(signs)


blocks = st.integers(0, BLOCKS - 1)
values = st.lists(st.sampled_from([1.0, 2.0, 0.5, -1.0, -2.0]), min_size=LANES, max_size=LANES).map(frozen)
facts = st.tuples(st.sampled_from(["union", "union", "same", "ground", "positive"]), blocks, blocks, values)


def state(scales: Scales) -> list[object]:
    """All that can be seen of a state."""
    seen: list[object] = []
    for block in range(BLOCKS):
        root, ratio = scales.find(block)
        known = {name: np.array(value).tolist() for name, value in vars(scales.classes[block]).items()}
        seen.append((root, None if ratio is None else ratio.tolist(), known))
    return [*seen, list(scales._weight)]


@given(st.lists(facts, max_size=12))
@settings(max_examples=300, deadline=None)
def test_a_fact_is_accepted_if_and_only_if_the_linear_system_stays_solvable(given_facts: list[Fact]) -> None:
    scales = Scales(BLOCKS)
    accepted: list[Fact] = []
    for fact in given_facts:
        before = state(scales)
        reason = put(scales, fact)
        magnitude, sign = possible([*accepted, fact])
        assert (reason is None) == (magnitude and sign)
        if reason is None:
            accepted.append(fact)
            continue
        assert state(scales) == before, "a refusal changed something"
        if sign:
            assert reason is Reason.SHARED_UNIT, "only the sizes disagree"
        asked = any(kind == "positive" for kind, *_ in [*accepted, fact])
        assert asked or reason is Reason.SHARED_UNIT, "nobody asked for a sign"
    check_ratios(scales, accepted)


def check_ratios(scales: Scales, accepted: Sequence[Fact]) -> None:
    """The scales that follow from the roots obey every accepted fact."""
    size = []
    for block in range(BLOCKS):
        root, ratio = scales.find(block)
        known = scales.classes[root]
        base = np.full(LANES, 8.0) if known.absolute is None else known.absolute
        if known.absolute is None and known.sign is not None:
            base = base * np.where(np.asarray(known.sign) < 0, -1, 1)
        size.append(base if ratio is None else base * ratio)
    for kind, a, b, value in accepted:
        if kind == "positive":
            assert (size[a] > 0).all()
        elif kind == "ground":
            np.testing.assert_allclose(size[a], value)
        else:
            np.testing.assert_allclose(size[b], size[a] * (value if kind == "union" else 1.0))


@given(st.lists(facts, max_size=8), st.lists(facts, max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_rollback_restores_everything(first: list[Fact], second: list[Fact]) -> None:
    scales = Scales(BLOCKS)
    for fact in first:
        put(scales, fact)
    before, mark = state(scales), scales.mark()
    for number, fact in enumerate(second):
        put(scales, fact)
        scales.add_made(fact[1], number)
        scales.mark_shared(fact[2])
    scales.rollback(mark)
    assert state(scales) == before
    assert scales.mark() == mark


# Refusals, one by one


def two() -> Scales:
    return Scales(2)


def test_the_same_ratio_again_is_nothing_new() -> None:
    """Two routes to one ratio differ by rounding only, and that is no disagreement."""
    scales = two()
    ratio = frozen([0.1, 3.0, -7.0])
    assert scales.union(0, 1, ratio) is None
    assert scales.union(1, 0, 1 / ratio) is None
    assert scales.union(0, 1, ratio * (1 + 1e-15)) is None


def test_another_ratio_is_refused() -> None:
    scales = two()
    assert scales.union(0, 1, frozen([2.0])) is None
    assert scales.union(0, 1, frozen([2.0 + 1e-9])) is Reason.SHARED_UNIT


def test_one_lane_that_disagrees_is_enough() -> None:
    scales = two()
    assert scales.union(0, 1, None) is None
    assert scales.union(0, 1, frozen([1.0, 2.0])) is Reason.SHARED_UNIT


def test_a_class_tied_by_a_shared_weight_says_so() -> None:
    scales = two()
    assert scales.union(0, 1, None) is None
    scales.mark_shared(1)
    assert scales.union(0, 1, frozen([2.0])) is Reason.SHARED_WEIGHT


def test_two_grounds_behind_a_shared_weight_say_so() -> None:
    scales = Scales(3)
    assert scales.union(0, 1, None) is None
    scales.mark_shared(0)
    assert (scales.ground(0, 1.0), scales.ground(2, 1.0)) == (None, None)
    assert scales.union(1, 2, frozen([3.0])) is Reason.SHARED_WEIGHT


@pytest.mark.parametrize("order", ["sign first", "ground first", "union first"])
def test_a_negative_ratio_to_a_known_scale_is_refused_where_it_must_be_positive(order: str) -> None:
    """Block 1 passes a ReLU; block 0 is a graph input."""
    scales = two()
    steps = {
        "sign": lambda: scales.positive(1),
        "ground": lambda: scales.ground(0, 1.0),
        "union": lambda: scales.union(0, 1, frozen([-2.0])),
    }
    first = order.split()[0]
    reasons = [steps[name]() for name in (first, *(n for n in steps if n != first))]
    assert reasons == [None, None, Reason.NEGATIVE_GAMMA]


def test_opposite_signs_in_one_class_are_refused() -> None:
    scales = two()
    assert (scales.positive(0), scales.positive(1)) == (None, None)
    assert scales.union(0, 1, frozen([-1.0])) is Reason.NEGATIVE_GAMMA


def test_a_whole_class_may_be_negative() -> None:
    """Only the ratio to what must be positive counts: a free class takes any sign."""
    scales = Scales(3)
    assert scales.positive(2) is None
    assert scales.union(0, 1, frozen([-1.0])) is None
    assert scales.union(1, 2, frozen([-1.0])) is None
    assert scales.union(0, 2, None) is None


def test_a_scale_of_zero_is_refused_where_something_divides_by_it() -> None:
    scales = two()
    scales.add_made(0, 1)
    assert scales.ground(0, 0.0) is Reason.ZERO_GAMMA


def test_a_scale_of_zero_is_refused_later_as_well() -> None:
    scales = two()
    scales.add_made(1, 1)
    assert scales.ground(0, 0.0) is None
    assert scales.union(0, 1, frozen([2.0])) is Reason.ZERO_GAMMA


def test_what_is_only_read_may_be_zero_everywhere() -> None:
    """Behind a gamma of 0 all scales of the class are 0, whatever their ratio; ReLU has nothing against it."""
    scales = two()
    assert (scales.ground(0, 0.0), scales.union(0, 1, frozen([-3.0])), scales.positive(1)) == (None, None, None)
    assert scales.ground(1, 0.0) is None
    assert scales.ground(1, 1.0) is Reason.SHARED_UNIT


def test_dividing_stops_when_the_one_who_divides_is_gone() -> None:
    scales = two()
    scales.add_made(0, 1)
    scales.add_made(0, -1)
    assert scales.ground(0, 0.0) is None


def test_a_ratio_travels_along_a_long_chain() -> None:
    """A thousand ratios of 2 and 1/2: the product is exact, and the class stays shallow."""
    scales = Scales(1001)
    for block in range(1000):
        assert scales.union(block, block + 1, frozen([2.0 if block % 2 else 0.5])) is None
    assert scales.union(0, 1000, None) is None
    assert scales.union(0, 999, None) is Reason.SHARED_UNIT
