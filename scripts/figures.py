"""Draws the figures of docs/folding.md from docs/figures/*.dot, with Graphviz's `dot`; writes an .svg beside each.

    python scripts/figures.py

Colours are classes of the nodes (docs/figures/style.css), so that a figure follows a light or dark theme: `gone` (what
the fold removes), `changed` (whose weights it rewrites), `kept`, and `value` for what is no operator.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"

DEFAULTS = (
    *("-Gbgcolor=transparent", "-Gfontname=sans-serif", "-Gpad=0.15"),
    *("-Nshape=box", "-Nstyle=rounded", "-Nfontname=sans-serif", "-Nfontsize=12", "-Nmargin=0.12,0.06", "-Nheight=0.3"),
    *("-Efontname=sans-serif", "-Efontsize=11", "-Earrowsize=0.7"),
)


def drawn(source: Path) -> str:
    """The figure as SVG, without what differs from one version of Graphviz to the next."""
    style = (FIGURES / "style.css").read_text(encoding="utf-8")
    command = ["dot", "-Tsvg", *DEFAULTS, str(source)]
    svg = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    svg = re.sub(r"<!--.*?-->\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (?:fill|stroke)="(?:none|black|transparent)"', lambda k: k[0] if "none" in k[0] else "", svg)
    return svg.replace("<g id=", f"<style>\n{style}</style>\n<g id=", 1)


def main() -> int:
    """Draws every figure."""
    for source in sorted(FIGURES.glob("*.dot")):
        target = source.with_suffix(".svg")
        target.write_text(drawn(source), encoding="utf-8")
        print(f"Written to {target.relative_to(FIGURES.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
