"""A run as Markdown: for the summary of a job, a comment, a file beside the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import bnfold.reporting.page.sections as sections
from bnfold.reporting.page.facts import rows, tiles, verdict
from bnfold.wording import printable

SIGNS = {"good": "✅", "mixed": "🟡", "bad": "❌"}

SHOWN = 25


def render_markdown(run: Mapping[str, Any]) -> str:
    """The verdict, the numbers behind it, and every BatchNorm that stays."""
    found = verdict(run)
    name = PurePath(run["source"]["path"]).name or run["source"]["path"]
    lines = [f"### {SIGNS[found.state]} {plain(found.sentence)}", "", code(name), ""]
    lines += [f"- {plain(failure)}" for failure in found.failures] + [""] * bool(found.failures)
    numbers = [(tile.title, tile.before or "", f"{tile.value} {tile.note}".strip()) for tile in tiles(run)]
    lines += _table(("", "before", "after"), [[plain(cell) for cell in row] for row in numbers])
    kept = [row for row in rows(run) if row.status == "kept"]
    if kept:
        cells = [(code(row.name), plain(row.code), plain(row.text)) for row in kept[:SHOWN]]
        lines += ["#### Kept", "", *_table(("BatchNorm", "reason", ""), cells)]
        if len(kept) > SHOWN:
            lines += [f"and {len(kept) - SHOWN} more", ""]
    timed = sections.latency(run)
    if timed:
        columns = timed["columns"]
        timings = [[plain(row["name"]), *(plain(cell) for _, cell in row["cells"])] for row in timed["rows"]]
        lines += ["#### Latency", "", plain(timed["lead"]), "", *_table(("runtime", *columns), timings)]
        lines += [f"- {plain(sentence)}" for sentence in (*timed["verdicts"], *timed["warnings"])] + [""]
    exact = sections.accuracy(run)
    if exact:
        lines += ["#### Accuracy", "", plain(exact["lead"]), ""]
        lines += _table(("", ""), [(plain(key), plain(value)) for key, value in exact["facts"]])
    lines.append(f"bnfold {plain(run.get('bnfold', ''))}")
    return "\n".join(lines) + "\n"


def plain(text: object) -> str:
    """Text in which nothing is markup: of Markdown, of HTML, or a mention of somebody."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$@&!])", lambda match: f"&#{ord(match[1])};", printable(text, 1000))


def code(text: object) -> str:
    """A name in a code span, which it cannot end."""
    return f"<code>{plain(text)}</code>"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    if not body:
        return []
    lines = [head, ["---"] * len(head), *body]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
