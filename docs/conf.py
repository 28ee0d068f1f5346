"""How the pages of docs/ become a site: `make docs`, which fails on any warning."""

import re
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path

from bnfold.reasons import Reason
from bnfold.reporting.explanations import EXPLANATIONS, Explanation

project = "bnfold"
author = "the bnfold contributors"
release = version = installed("bnfold")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_generated"]

myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository; tests/test_docs.py follows them

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "bnfold"
html_show_sourcelink = False

GENERATED = Path(__file__).parent / "_generated"


def command_line() -> str:
    """The help of every command, as Typer writes it; examples become blocks of code."""
    command = [sys.executable, "-m", "typer", "bnfold.cli.app", "utils", "docs", "--name", "bnfold"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = re.sub(r"^# `bnfold`\n", "", text)
    return re.sub(
        r"^Examples:\n((?:  .*\n)+)",
        lambda found: f"**Examples**:\n\n```console\n{re.sub('^  ', '$ ', found[1], flags=re.MULTILINE)}```\n",
        text,
        flags=re.MULTILINE,
    )


def reasons() -> str:
    """A section per reason."""
    return "\n".join(section(reason, explanation) for reason, explanation in EXPLANATIONS.items())


def section(reason: Reason, explanation: Explanation) -> str:
    """What `bnfold explain` says about a reason, as a section of a page."""
    changes = "\n".join(f"- {change}" for change in explanation.change)
    return (
        f"## {reason.code}\n\n*{reason.text[0].upper()}{reason.text[1:]}.*\n\n{explanation.meaning}\n\n"
        f"```text\n{explanation.picture}\n```\n\nWhat would let it fold:\n\n{changes}\n"
    )


def setup(app: object) -> None:
    """Writes the pages that come out of the package."""
    GENERATED.mkdir(exist_ok=True)
    for name, text in {"command-line.md": command_line(), "reasons.md": reasons()}.items():
        (GENERATED / name).write_text(text, encoding="utf-8")
