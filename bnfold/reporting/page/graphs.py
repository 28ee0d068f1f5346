"""The graph of a run as a picture: SVG, Mermaid, or DOT for Graphviz."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from bnfold.errors import UsageError
from bnfold.reporting.page.facts import STATUSES
from bnfold.reporting.page.layering import lay_out
from bnfold.wording import printable

Nodes = Sequence[Mapping[str, Any]]

LONGEST_LABEL = 32
COLOURS = {  # fill and line; with the text they are told apart without colours
    "folded": ("#dff1ee", "#00695c"),
    "merged": ("#e4ecf9", "#2a55a0"),
    "kept": ("#fcebdd", "#9c3d00"),
    "changed": ("#f3e8f8", "#75378f"),
}
PLAIN = ("#ffffff", "#8a95a1")
HEIGHT, LAYER = 46, 76


def check_graph_file(path: str) -> None:
    """Refuses a file whose suffix stands for no kind of picture.

    Raises:
        UsageError: It does.
    """
    if not path.lower().endswith(tuple(KINDS)):
        raise UsageError(f"--graph {path} has no suffix that stands for a picture", f"Use one of: {', '.join(KINDS)}.")


def render_graph(path: str, run: Mapping[str, Any]) -> str:
    """The graph before, with the fate of every operator, in the form that the suffix stands for."""
    nodes = run["picture"]["before"]
    return next(draw for suffix, draw in KINDS.items() if path.lower().endswith(suffix))(nodes)


def to_svg(nodes: Nodes) -> str:
    """A picture in layers, from top to bottom."""
    texts = [_lines(node) for node in nodes]
    widths = [max(len(line) for line in lines) * 6.6 + 24.0 for lines in texts]
    layout = lay_out(widths, [node.get("reads") or () for node in nodes])
    width, height = layout.width + 32, layout.layers * LAYER + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" font-family="system-ui, sans-serif">',
        "<title>The graph, with what becomes of every BatchNorm</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<g fill="none" stroke="#8a95a1" stroke-width="1.2">',
    ]
    for chain in layout.edges.values():
        lines.append(f'<path d="{_curve([(x + 16, _y(layer)) for x, layer in chain])}"/>')
    lines.append("</g>")
    for node, text, (x, layer), wide in zip(nodes, texts, layout.centres, widths, strict=True):
        fill, line = COLOURS.get(node["status"], PLAIN)
        dash = ' stroke-dasharray="5 3"' if node["status"] in ("folded", "merged", "gone") else ""
        left, top = x + 16 - wide / 2, _y(layer) - HEIGHT / 2
        lines.append(
            f'<g transform="translate({left:.1f} {top:.1f})"><title>{_text(node["name"])}</title>'
            f'<rect width="{wide:.1f}" height="{HEIGHT}" rx="5" fill="{fill}" stroke="{line}"{dash}/>'
            + "".join(_row(line, index, wide, len(text)) for index, line in enumerate(text))
            + "</g>"
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(line: str, index: int, width: float, count: int) -> str:
    """A line of text in a box; the first is the operator."""
    look = 'font-size="12" font-weight="600" fill="#15191e"' if index == 0 else 'font-size="10.5" fill="#56616d"'
    y = HEIGHT / 2 - 6.5 * count + 13 * index + 10.5
    return f'<text x="{width / 2:.1f}" y="{y:.1f}" text-anchor="middle" {look}>{_text(line)}</text>'


def to_mermaid(nodes: Nodes) -> str:
    """A flowchart, its operators in the modules that made them."""
    lines = ["flowchart TD"]
    _nested(
        nodes,
        lines,
        lambda at, node: f'n{at}["{"<br/>".join(map(_mermaid, _lines(node)))}"]{_class(node)}',
        lambda number, name: f'subgraph g{number}["{_mermaid(name)}"]',
        "end",
    )
    lines += [f"  n{source} --> n{at}" for at, node in enumerate(nodes) for source in node.get("reads") or ()]
    lines += [f"  classDef {status} fill:{fill},stroke:{line}" for status, (fill, line) in COLOURS.items()]
    return "\n".join(lines) + "\n"


def to_dot(nodes: Nodes) -> str:
    """A graph for Graphviz, its operators in clusters by the modules that made them."""
    lines = ["digraph bnfold {", '  node [shape=box, style="filled,rounded", fontname="sans-serif", fillcolor=white];']

    def draw(at: int, node: Mapping[str, Any]) -> str:
        fill, line = COLOURS.get(node["status"], PLAIN)
        label = "\\n".join(map(_dot, _lines(node)))
        return f'n{at} [label="{label}", tooltip="{_dot(node["name"])}", fillcolor="{fill}", color="{line}"];'

    _nested(nodes, lines, draw, lambda number, name: f'subgraph cluster_{number} {{ label="{_dot(name)}";', "}")
    lines += [f"  n{source} -> n{at};" for at, node in enumerate(nodes) for source in node.get("reads") or ()]
    return "\n".join([*lines, "}"]) + "\n"


def _nested(
    nodes: Nodes,
    lines: list[str],
    draw: Callable[[int, Mapping[str, Any]], str],
    begin: Callable[[int, str], str],
    end: str,
) -> None:
    """Writes the nodes, those of one module together."""
    tree: dict[str, Any] = {}
    for at, node in enumerate(nodes):
        place = tree
        for part in node.get("path") or ():
            place = place.setdefault(f"m{part}", {})
        place[f"n{at}"] = node
    count = 0
    stack: list[tuple[int, Any]] = [(1, iter(tree.items()))]
    while stack:
        depth, items = stack[-1]
        key, value = next(items, ("", {}))
        name = key[1:]
        while key.startswith("m") and len(value) == 1:  # a module of one thing is that thing
            [(key, value)] = value.items()
            name = f"{name}.{key[1:]}"
        if not key:
            stack.pop()
            lines += ["  " * stack[-1][0] + end] if stack else []
        elif key.startswith("n"):
            lines.append("  " * depth + draw(int(key[1:]), value))
        else:
            count += 1
            lines.append("  " * depth + begin(count, name))
            stack.append((depth + 1, iter(value.items())))


def _lines(node: Mapping[str, Any]) -> list[str]:
    """What stands in a box: the operator, its name, and its fate if it has one."""
    if node["op"] in ("Input", "Output"):
        return [_short(node["name"]), *([_short(node["shape"])] if node.get("shape") else [])]
    fate = [] if node["status"] == "same" else [STATUSES.get(node["status"], node["status"])]
    return [_short(node["op"]), _short(node["name"]), *map(_short, fate)]


def _short(text: str) -> str:
    text = printable(text, 500)
    return text if len(text) <= LONGEST_LABEL else f"…{text[-LONGEST_LABEL + 1 :]}"


def _text(text: str) -> str:
    return escape(printable(text, 500))


def _mermaid(text: str) -> str:
    """Text inside quotes, with the characters that mean something there as numbers."""
    return "".join(char if char.isalnum() or char in " _-./:×…" else f"#{ord(char)};" for char in printable(text, 500))


def _dot(text: str) -> str:
    return printable(text, 500).replace("\\", "\\\\").replace('"', '\\"')


def _class(node: Mapping[str, Any]) -> str:
    return f":::{node['status']}" if node["status"] in COLOURS else ""


def _y(layer: float) -> float:
    return layer * LAYER + LAYER / 2 + 8


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """From under the first box to above the last, straight past the layers between and bent between layers."""
    (x, y), *rest = points
    y += HEIGHT / 2
    path = f"M{x:.1f} {y:.1f}"
    for index, (to_x, to_y) in enumerate(rest):
        end = to_y - HEIGHT / 2
        middle = (y + end) / 2
        path += f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {end:.1f}"
        x, y = to_x, to_y + HEIGHT / 2
        if index < len(rest) - 1:
            path += f"V{y:.1f}"
    return path


KINDS: dict[str, Callable[[Nodes], str]] = {".svg": to_svg, ".mmd": to_mermaid, ".dot": to_dot}
