"""Random graphs, built so that every draw fits and what fails shrinks to a few readable lines."""

from __future__ import annotations

from hypothesis import strategies as st

from .moves import MOVES, OPENERS, SHARING, conv, levels
from .spec import Spec
from .traps import TRAPS
from .walk import Draw, NoFit, Walk


@st.composite
def specs(draw: Draw, *, anything: bool = False, sharing: bool = False, moves: int = 16) -> Spec:
    """Random graphs.

    Args:
        draw: Hypothesis's.
        anything: With zero gammas, traps and overridable initializers, for which only exactness is asserted.
        sharing: With weights under several operators.
        moves: The most moves made (a move is one operator or one small block).
    """
    w = Walk(draw, anything=anything)
    shape = (draw(st.integers(2, 4)), draw(st.integers(3, 6)), draw(st.integers(3, 6)))
    x = w.b.input(*shape)
    if w.sometimes(5):
        w.b.input(*shape)
    choices = [*MOVES, *(TRAPS if anything else []), *(SHARING if sharing else [])]
    openers = [*OPENERS, *[levels] * (4 if sharing else 0)]
    stem = [] if w.sometimes(3) else [lambda w: conv(w, x)]
    for move in (*stem, w.choose(openers), *draw(st.lists(st.sampled_from(choices), min_size=2, max_size=moves))):
        try:
            move(w)
        except NoFit:
            continue
    return _finish(w)


def _finish(w: Walk) -> Spec:
    """Outputs and the way the model is written. Half of the loose ends get a conv, so that they are not rigid."""
    read = {name for step in w.b.steps for name in step.reads}
    leaves = [(step.op, name) for step in w.b.steps for name in step.writes if name not in read]
    outputs = []
    for op, leaf in leaves:
        if op == "split" and len(leaves) > 1 and w.sometimes(2):
            continue
        outputs.append(w.b.conv(leaf, 2) if w.is_image(leaf) and w.choose([False, True]) else leaf)
    inner = [name for name in w.b.values if name in read and name not in w.b.inputs]
    if inner and w.sometimes(4):
        outputs.append(w.pick(inner[::-1]))
    outputs = outputs or [w.b.op("relu", w.b.inputs[0])]
    options = {"opset": w.choose([18, 21])}
    if w.sometimes(3) or any(step.op == "concat" and step.consts for step in w.b.steps):
        options["static_batch"] = True
    if w.sometimes(3):
        options["value_info"] = True
    return w.b.finish(*dict.fromkeys(outputs), overridable=_overridable(w), **options)


def _overridable(w: Walk) -> list[tuple[int, str]]:
    """Sometimes one initializer that the caller may override."""
    shared = {(index, key) for index, key, _ in w.b.shared}
    places = [(i, key) for i, step in enumerate(w.b.steps) for key in step.consts if (i, key) not in shared]
    return [w.choose(places)] if places and w.anything and w.sometimes(6) else []
