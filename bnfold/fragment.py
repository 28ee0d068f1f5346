"""Small pieces of HTML for notebooks: a sentence and a table, with every name escaped and nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bnfold.wording import printable

ROWS_SHOWN = 40

LONGEST_CELL = 200


def html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A title, a table and a note.

    Args:
        title: One line above it.
        columns: Their names.
        rows: Cells as text, or as numbers, of which three digits are shown; None is a dash.
        note: One line below it.
    """
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows[:ROWS_SHOWN])
    more = f"{len(rows) - ROWS_SHOWN} more rows" if len(rows) > ROWS_SHOWN else ""
    below = "".join(f"<p>{_text(line)}</p>" for line in (more, note) if line)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<div><p><strong>{_text(title)}</strong></p>{table}{below}</div>"


def timing_html(timing: Mapping[str, Any]) -> str:
    """A benchmark, from what it is in `--json`."""
    rows = timing["rows"]
    columns = ("runtime", "threads", "before, ms", "after, ms", "speed-up", "95 % from", "to", "control from", "to", "")
    keys = ("runtime", "threads", "before_ms", "after_ms", "speedup", "low", "high", "control_low", "control_high")
    cells = [[*(row.get(key) for key in keys), row.get("verdict", "")] for row in rows]
    note = "; ".join(timing.get("warnings", ()))
    return html_table(f"Latency at batch {timing['batch']}", columns, cells, note)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else _text(value)


def _text(value: object) -> str:
    return escape(printable(value, LONGEST_CELL))
