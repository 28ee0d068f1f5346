"""A run as one HTML file that asks for nothing.

Everything stands in the file: its style, its two scripts, and the run itself as JSON, from which the graph is drawn and
which can be saved again. The content security policy allows nothing but these, by their hashes.

Names come from whoever made the model. They reach the page through jinja2's autoescape after `printable`, and the
script through JSON in which no character is left that HTML reads; the script writes them as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

import bnfold.reporting.page.sections as sections
from bnfold.reporting.page.facts import ADVICE, STATUSES, affines, rows, tiles, verdict
from bnfold.reporting.page.words import plural
from bnfold.wording import printable

LONGEST_TEXT = 2000

LEGEND = ("folded", "merged", "kept", "changed", "gone", "new")


def render_html(run: Mapping[str, Any]) -> str:
    """The page of a run.

    Args:
        run: What `--json` holds (schema 1); what it lacks was not measured.
    """
    style = _asset("report.css")
    library = _library()
    script = _asset("report.js")
    picture = run.get("picture")
    shown = {node["status"] for side in ("before", "after") for node in (picture or {}).get(side) or ()}
    sites, others = sections.site_rows(rows(run)), sections.site_rows(affines(run))
    context = {
        "policy": policy([library, script], style),
        "title": PurePath(run["source"]["path"]).name or run["source"]["path"],
        "output": PurePath(run["output"]["path"]).name if run.get("output") else "",
        "run": {"command": run.get("command") or ""},
        "version": run.get("bnfold") or "",
        "verdict": verdict(run),
        "tiles": tiles(run),
        "rows": sites,
        "affines": others,
        "lead": sections.lead(run, sites),
        "statuses": list(dict.fromkeys(row["status"] for row in sites)),
        "reasons": sorted({row["code"] for row in sites if row["code"]}),
        "labels": STATUSES,
        "legend": [status for status in LEGEND if status in shown],
        "picture": picture,
        "drawn": {side: _drawn((picture or {}).get(side) or ()) for side in ("before", "after")},
        "errors": sections.errors(run),
        "latency": sections.latency(run),
        "accuracy": sections.accuracy(run),
        "layers": sections.layers(run),
        "weights": sections.weights(run),
        "operators": sections.operators(run),
        "notes": run.get("notes") or (),
        "environment": sections.environment(run),
    }
    present = [
        (key, name)
        for key, name, there in (
            ("sites", "BatchNorms", sites),
            ("graph", "Graph", picture),
            ("error", "Error", context["errors"]),
            ("latency", "Latency", context["latency"]),
            ("accuracy", "Accuracy", context["accuracy"]),
            *((layer["key"], layer["title"], True) for layer in sections.layers(run)),
            ("weights", "Weight ranges", context["weights"]),
            ("operators", "Operators", context["operators"]),
            ("run", "Run", True),
        )
        if there
    ]
    return _template().render(
        **context,
        sections=present,
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        data=inert_json(run),
        advice=inert_json(ADVICE),
    )


def _drawn(nodes: Sequence[Mapping[str, Any]]) -> str:
    return plural(sum(node["op"] not in ("Input", "Output") for node in nodes), "operator")


def policy(scripts: list[str], style: str) -> str:
    """The content security policy that allows these scripts and this style, and nothing else from anywhere."""
    allowed = " ".join(_hash(script) for script in scripts)
    return f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"


def inert_json(value: object) -> Markup:
    """JSON to stand inside a script element: nothing in it ends the element, begins a comment or breaks a line."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return (resources.files("bnfold.reporting.page") / "templates" / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Dagre with its license, without the address of a source map that is not there."""
    folder = resources.files("bnfold.reporting.page") / "vendor"
    code = (folder / "dagre.min.js").read_text(encoding="utf-8")
    kept = "\n".join(line for line in code.splitlines() if not line.startswith("//# sourceMappingURL"))
    return f"/*\n{(folder / 'LICENSE.dagre.txt').read_text(encoding='utf-8')}*/\n{kept}\n"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("bnfold.reporting.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value, LONGEST_TEXT) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
