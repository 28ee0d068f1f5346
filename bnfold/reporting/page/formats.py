"""The forms in which a run is written, by the suffix of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bnfold.errors import UsageError


def render(form: str, run: Mapping[str, Any]) -> str:
    """A run as `"html"`, `"markdown"` or `"junit"`."""
    if form == "html":
        from bnfold.reporting.page.html import render_html

        return render_html(run)
    from bnfold.reporting.page.junit import render_junit
    from bnfold.reporting.page.markdown import render_markdown

    forms: dict[str, Callable[[Mapping[str, Any]], str]] = {"markdown": render_markdown, "junit": render_junit}
    return forms[form](run)


SUFFIXES = {".html": "html", ".htm": "html", ".md": "markdown", ".xml": "junit"}


def form_of(path: str) -> str:
    """The form that a file's suffix stands for.

    Raises:
        UsageError: It stands for none.
    """
    for suffix, form in SUFFIXES.items():
        if path.lower().endswith(suffix):
            return form
    raise UsageError(
        f"{path} has no suffix that stands for a report",
        "Use .html for a page, .md for Markdown, or .xml for JUnit.",
    )
