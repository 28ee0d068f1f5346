"""The files that a command writes its report to, besides what it prints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnfold.errors import OutputError, UsageError
from bnfold.interrupts import placed

if TYPE_CHECKING:
    from bnfold.reporting.report import Report

FORMS = {"html_file": "html", "markdown_file": "markdown", "junit_file": "junit"}

FLAGS = ("json_file", *FORMS, "graph_file", "github")

SUMMARY = "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True)
class Files:
    """What was asked for.

    Attributes:
        asked: The flags that the command has, by the names of their parameters, and what was given.
    """

    asked: dict[str, Any]

    @classmethod
    def popped_from(cls, arguments: dict[str, Any]) -> Files:
        """Takes the flags out of what the command line gave."""
        return cls({flag: arguments.pop(flag) for flag in FLAGS if flag in arguments})

    @property
    def need_picture(self) -> bool:
        """Whether something is written that holds, or is drawn from, the graphs."""
        return any(self.asked.get(flag) for flag in ("json_file", "html_file", "graph_file"))

    @property
    def paths(self) -> list[str]:
        """The files to be written anew.

        Raises:
            UsageError: A picture has a suffix that stands for none, or `--github` has no job.
        """
        if self.asked.get("github") and not os.environ.get(SUMMARY):
            raise UsageError(
                f"--github was given, and {SUMMARY} is not set",
                "GitHub Actions sets it; elsewhere use --markdown FILE.",
            )
        if self.asked.get("graph_file"):
            from bnfold.reporting.page.graphs import check_graph_file

            check_graph_file(self.asked["graph_file"])
        named = {flag: path for flag, path in self.asked.items() if flag != "github" and path}
        return [path for flag, path in named.items() if (flag, path) != ("json_file", "-")]

    def write(self, report: Report) -> None:
        """Writes all of them.

        Raises:
            OutputError: One cannot be written.
        """
        if not any(self.asked.values()):
            return
        from bnfold.reporting.page.formats import render
        from bnfold.writing.export import write_text

        json_file = self.asked.get("json_file")
        if json_file not in (None, "-"):
            write_text(report.to_json(), json_file)
        run = report.to_dict()
        for flag, form in FORMS.items():
            if self.asked.get(flag):
                write_text(render(form, run), self.asked[flag])
        if self.asked.get("graph_file") and report.picture is not None:
            from bnfold.reporting.page.graphs import render_graph

            write_text(render_graph(self.asked["graph_file"], run), self.asked["graph_file"])
        if self.asked.get("github"):
            _append(render("markdown", run), os.environ[SUMMARY])


def _append(text: str, path: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
        placed(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", f"It is what {SUMMARY} names.") from error
