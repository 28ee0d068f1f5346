from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.reporting.page.layering import GAP, lay_out


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[float], list[list[int]]]:
    count = draw(st.integers(1, 30))
    widths = draw(st.lists(st.floats(20, 200), min_size=count, max_size=count))
    reads = [draw(st.lists(st.integers(0, box - 1), max_size=4)) if box else [] for box in range(count)]
    return widths, reads


@settings(deadline=None)
@given(graphs())
def test_boxes_stand_below_what_they_read_and_never_on_one_another(graph: tuple[list[float], list[list[int]]]) -> None:
    widths, reads = graph
    found = lay_out(widths, reads)
    assert len(found.centres) == len(widths)
    for box, sources in enumerate(reads):
        assert all(found.centres[source][1] < found.centres[box][1] for source in sources)
    layers: dict[float, list[tuple[float, float]]] = {}
    for (x, layer), width in zip(found.centres, widths, strict=True):
        layers.setdefault(layer, []).append((x, width))
        assert x - width / 2 >= -1e-6
        assert x + width / 2 <= found.width + 1e-6
    for boxes in layers.values():
        for (x, width), (other, wide) in pairwise(sorted(boxes)):
            assert other - x >= width / 2 + wide / 2 + min(GAP, 10) - 1e-6


@settings(deadline=None)
@given(graphs())
def test_every_edge_passes_every_layer_between_its_ends(graph: tuple[list[float], list[list[int]]]) -> None:
    widths, reads = graph
    found = lay_out(widths, reads)
    assert set(found.edges) == {(source, box) for box, sources in enumerate(reads) for source in sources}
    for (source, box), points in found.edges.items():
        assert points[0] == found.centres[source]
        assert points[-1] == found.centres[box]
        assert [layer for _, layer in points] == [points[0][1] + i for i in range(len(points))]


def test_a_chain_is_a_straight_line() -> None:
    found = lay_out([50.0, 80.0, 30.0], [[], [0], [1]])
    assert [x for x, _ in found.centres] == [40.0, 40.0, 40.0]
    assert [layer for _, layer in found.centres] == [0.0, 1.0, 2.0]


def test_a_shortcut_goes_past_what_it_skips() -> None:
    found = lay_out([50.0, 50.0, 50.0], [[], [0], [0, 1]])
    (_, past, _) = found.edges[(0, 2)]
    assert abs(past[0] - found.centres[1][0]) >= 25 + 10 - 1e-6


def test_what_reads_nothing_stands_right_above_its_reader() -> None:
    found = lay_out([10.0] * 4, [[], [0], [], [1, 2]])
    assert [layer for _, layer in found.centres] == [0.0, 1.0, 1.0, 2.0]


def test_nothing_has_no_place() -> None:
    assert lay_out([], []).layers == 0


def test_what_reads_something_later_is_drawn_without_that_edge() -> None:
    assert set(lay_out([10.0, 10.0], [[1], [0]]).edges) == {(0, 1)}
