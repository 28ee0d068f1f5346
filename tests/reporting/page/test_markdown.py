from __future__ import annotations

import html
import re
from typing import Any

import pagecases
import pytest
import reports
from markdown_it import MarkdownIt

from bnfold.planning.plan import Plan, Site
from bnfold.reasons import Reason
from bnfold.reporting.page.markdown import SHOWN, code, plain, render_markdown


def shown(**changes: Any) -> str:
    return render_markdown(reports.report(**changes).to_dict())


def test_the_summary_begins_with_the_verdict() -> None:
    text = shown()
    assert (
        text.splitlines()[0]
        == "### 🟡 2 of 3 BatchNorms folded, 1 stays; the same function on 4 inputs; 1.25× as fast in ort."
    )
    assert "| BatchNorms | 3 | 1 |" in text
    assert f"| <code>bn3</code> | ZERO-PAD | {Reason.ZERO_PAD.text} |" in text
    assert "| ort | 1.25 ms | 1 ms | 1.25× | 1.2 … 1.3 |" in text


def test_what_failed_stands_under_it() -> None:
    text = shown(failures=("--fail-on kept>0: kept is 1",))
    assert text.startswith("### ❌ Rejected")
    assert "\n- --fail-on kept&#62;0: kept is 1\n" in text


def test_accuracy_is_a_table() -> None:
    assert "| before | 98.80 % |" in shown(accuracy=reports.ACCURACY)


def test_a_long_list_is_cut() -> None:
    sites = tuple(Site(f"bn{i}", "BatchNormalization", "kept", (), Reason.IO) for i in range(SHOWN + 3))
    text = shown(plan=Plan(sites))
    assert text.count("<code>bn") == SHOWN
    assert "and 3 more" in text


@pytest.mark.parametrize("name", pagecases.HOSTILE)
def test_hostile_names_are_text_to_a_reader_of_markdown(name: str) -> None:
    site = Site(name, "BatchNormalization", "kept", (), Reason.IO)
    read = MarkdownIt("commonmark").enable("table")
    page = read.render(shown(plan=Plan((site,)), failures=(name,)))
    tags = set(re.findall(r"</?([a-z0-9]+)", page))
    assert tags <= {"h3", "h4", "p", "code", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
    assert len(re.findall("<tr>", page)) == len(re.findall("<tr>", read.render(shown(plan=Plan((reports.KEPT,))))))


def test_text_without_markup_is_as_it_was() -> None:
    assert plain("a plain sentence, 1.5×.") == "a plain sentence, 1.5×."
    assert html.unescape(plain("<a> `b` *c* _d_ | [e](f) @g")) == "<a> `b` *c* _d_ | [e](f) @g"
    assert code("a|b") == "<code>a&#124;b</code>"
