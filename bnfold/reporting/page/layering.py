"""A layered layout of a directed graph, for pictures that nobody opens and closes.

Sugiyama, Tagawa and Toda 1981 in four steps: layers by longest path, long edges cut at every layer, the order within
layers by medians (Gansner et al. 1993), and places by least squares: a box wants to stand at the mean of its neighbours
in the next layer, boxes of one layer keep their order and distance. The last is isotonic regression, which pooling
adjacent violators solves exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 12
GAP = 18.0  # between boxes of a layer
GAP_OF_EDGES = 10.0  # between an edge and what is beside it

Point = tuple[float, float]


@dataclass
class _Layers:
    """The graph with long edges cut.

    Attributes:
        layers: Boxes by layer, in order; those that stand for a piece of an edge have numbers above the others.
        width: Of every box.
        above: Neighbours in the layer above.
        below: Neighbours in the layer below.
    """

    layers: list[list[int]]
    width: list[float]
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Where everything stands.

    Attributes:
        centres: Of every box: its middle in x, its layer in y.
        edges: The x and layer of each point of every edge, from its source to its target.
        width: Of the whole.
        layers: How many there are.
    """

    centres: tuple[Point, ...]
    edges: Mapping[tuple[int, int], tuple[Point, ...]]
    width: float
    layers: int


def lay_out(widths: Sequence[float], reads: Sequence[Sequence[int]]) -> Layout:
    """Places boxes in layers, each below what it reads.

    Args:
        widths: Of each box.
        reads: For each box, the earlier boxes that it reads; what is not earlier is left out.
    """
    edges = [(source, box) for box, sources in enumerate(reads) for source in dict.fromkeys(sources) if source < box]
    layer = _layer_of(len(widths), edges)
    cut = _Layers([[] for _ in range(max(layer, default=-1) + 1)], list(widths))
    for box, at in enumerate(layer):
        cut.layers[at].append(box)
    cut.above, cut.below = [[] for _ in widths], [[] for _ in widths]
    chains = {edge: _cut(cut, edge, layer) for edge in edges}
    _order(cut)
    x = _places(cut)
    left = min((x[box] - cut.width[box] / 2 for box in range(len(x))), default=0.0)
    right = max((x[box] + cut.width[box] / 2 for box in range(len(x))), default=0.0)
    depth = {box: at for at, boxes in enumerate(cut.layers) for box in boxes}
    place = [(x[box] - left, float(depth[box])) for box in range(len(x))]
    lines = {edge: tuple(place[box] for box in chain) for edge, chain in chains.items()}
    return Layout(tuple(place[: len(widths)]), lines, right - left, len(cut.layers))


def _layer_of(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path to each box; a box that reads nothing stands right above its first reader."""
    layer = [0] * count
    for source, box in edges:  # in the order of the boxes
        layer[box] = max(layer[box], layer[source] + 1)
    has_source = {box for _, box in edges}
    nearest: dict[int, int] = {}
    for source, box in edges:
        nearest[source] = min(nearest.get(source, layer[box]), layer[box])
    return [layer[box] if box in has_source else nearest.get(box, 1) - 1 for box in range(count)]


def _cut(cut: _Layers, edge: tuple[int, int], layer: Sequence[int]) -> list[int]:
    """An edge as a chain through every layer between its ends."""
    source, target = edge
    chain = [source]
    for at in range(layer[source] + 1, layer[target]):
        piece = len(cut.width)
        cut.width.append(0.0)
        cut.above.append([])
        cut.below.append([])
        cut.layers[at].append(piece)
        chain.append(piece)
    chain.append(target)
    for one, two in pairwise(chain):
        cut.below[one].append(two)
        cut.above[two].append(one)
    return chain


def _order(cut: _Layers) -> None:
    """Sorts each layer by the medians of the neighbours in the one before, downwards and upwards in turns."""
    rank = {box: i for boxes in cut.layers for i, box in enumerate(boxes)}
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near = cut.above if down else cut.below
        for boxes in cut.layers if down else reversed(cut.layers):
            medians = {box: _median([rank[other] for other in near[box]], rank[box]) for box in boxes}
            boxes.sort(key=lambda box: medians[box])
            rank.update({box: i for i, box in enumerate(boxes)})


def _median(values: list[int], own: int) -> float:
    if not values:
        return float(own)
    values.sort()
    middle = len(values) // 2
    return float(values[middle]) if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _places(cut: _Layers) -> list[float]:
    x = [0.0] * len(cut.width)
    for boxes in cut.layers:
        for box, place in zip(boxes, _apart([0.0] * len(boxes), boxes, cut), strict=True):
            x[box] = place
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near = cut.above if down else cut.below
        for boxes in cut.layers if down else reversed(cut.layers):
            wanted = [sum(x[o] for o in near[box]) / len(near[box]) if near[box] else x[box] for box in boxes]
            for box, place in zip(boxes, _apart(wanted, boxes, cut), strict=True):
                x[box] = place
    return x


def _apart(wanted: Sequence[float], boxes: Sequence[int], cut: _Layers) -> list[float]:
    """The places nearest to those wanted, in order and not too close: isotonic regression by pooling violators."""
    offsets = [0.0]
    for one, two in pairwise(boxes):
        gap = GAP if cut.width[one] and cut.width[two] else GAP_OF_EDGES
        offsets.append(offsets[-1] + cut.width[one] / 2 + gap + cut.width[two] / 2)
    pools: list[tuple[float, int]] = []  # sum and number of what is pooled
    for place, offset in zip(wanted, offsets, strict=False):
        pools.append((place - offset, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1] = (pools[-1][0] + total, pools[-1][1] + count)
    flat = [total / count for total, count in pools for _ in range(count)]
    return [place + offset for place, offset in zip(flat, offsets, strict=False)]
