from __future__ import annotations

import pagecases
import pytest
import reports

from bnfold.benchmark.bench import Timing
from bnfold.fragment import html_table, timing_html
from bnfold.planning.plan import Plan, Site


def test_a_table_is_a_title_rows_and_a_note() -> None:
    assert html_table("a < b", ("x", "y"), [("n", 0.12345), (None, 2)], "why & how") == (
        "<div><p><strong>a &lt; b</strong></p><table><thead><tr><th>x</th><th>y</th></tr></thead><tbody>"
        "<tr><td>n</td><td>0.123</td></tr><tr><td>–</td><td>2</td></tr></tbody></table><p>why &amp; how</p></div>"
    )


def test_without_rows_there_is_no_table() -> None:
    assert html_table("nothing", ("x",), []) == "<div><p><strong>nothing</strong></p></div>"


def test_a_long_table_is_cut_and_says_so() -> None:
    shown = html_table("many", ("x",), [(i,) for i in range(100)])
    assert shown.count("<tr>") == 41
    assert "<p>60 more rows</p>" in shown


@pytest.mark.parametrize("name", pagecases.HOSTILE)
def test_names_cannot_end_their_cell(name: str) -> None:
    site = Site(name, "BatchNormalization", "folded", (name,))
    shown = Plan((site,), notes=(name,))._repr_html_()
    plain = html_table("x", ("a",), [("b",)])
    tags = {part.split(">")[0] for part in shown.split("<")[1:]}
    assert tags <= {part.split(">")[0] for part in plain.split("<")[1:]} | {"p", "/p"}
    assert all(char.isprintable() for char in shown)


def test_a_plan_shows_first_what_stays() -> None:
    shown = Plan((reports.FOLDED, reports.MERGED, reports.KEPT))._repr_html_()
    assert "3 BatchNorms: 1 folded, 1 merged, 1 kept" in shown
    assert shown.index("bn3") < shown.index("bn1")
    assert "ZERO-PAD" in shown


def test_a_verdict_says_what_was_found() -> None:
    assert "The same function, compared on 4 inputs" in reports.PASSED._repr_html_()
    failed = reports.FAILED._repr_html_()
    assert "Not the same function" in failed
    assert "the largest difference is 0.5" in failed


def test_a_timing_has_a_row_per_runtime() -> None:
    shown = timing_html(Timing((reports.ROW, reports.SINGLE), 8).to_dict())
    assert "Latency at batch 8" in shown
    assert "1.25× faster" in shown
    assert shown.count("<tr>") == 3


def test_a_report_has_its_verdict_and_what_stays() -> None:
    shown = reports.report()._repr_html_()
    assert "2 of 3 BatchNorms folded, 1 stays; the same function on 4 inputs" in shown
    assert "ZERO-PAD" in shown
