"""What the documents say is so: the README's tables and code are checked against the package."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from bnfold import errors
from bnfold.errors import BnfoldError
from bnfold.reasons import Reason

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the README, without its two header lines."""
    section = re.split(r"^## ", README, flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(heading + "\n")]
    lines = [line for line in text.splitlines() if line.startswith("| ") or line.startswith("|--")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_readme_lists_every_reason_with_its_sentence() -> None:
    assert rows("Why a BatchNorm stays") == [[f"`{reason.code}`", reason.text] for reason in Reason]


def test_the_readme_lists_every_exit_code() -> None:
    stated = {int(code.strip("`")) for code, _ in rows("Exit codes")}
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BnfoldError)]
    raised = {kind.exit_code for kind in tree}
    assert stated == raised | {0, 130}


def test_the_code_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[:1]
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] == "17 BatchNorms, 0 left"


def test_every_make_target_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    documents = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {name for path in documents for name in re.findall(r"`make ([a-z]+)`", path.read_text(encoding="utf-8"))}
    assert {"demo", "test"} <= targets
    assert named <= targets


def test_every_file_the_documents_link_to_exists() -> None:
    for document in [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


@pytest.mark.parametrize("source", sorted((ROOT / "docs/figures").glob("*.dot")), ids=lambda path: path.stem)
def test_a_figure_says_what_its_source_says_and_stands_in_the_theory(source: Path) -> None:
    text, drawn = source.read_text(encoding="utf-8"), source.with_suffix(".svg").read_text(encoding="utf-8")
    labels = [line for label in re.findall(r'label="([^"]*)"', text) for line in label.split("\\n")]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", text)
    shown = [" ".join(html.unescape(each).split()) for each in re.findall(r"<text[^>]*>([^<]*)</text>", drawn)]
    assert sorted(shown) == sorted(" ".join(each.split()) for each in (*labels, *cells))
    assert sorted(re.findall(r"class=(\w+)", text)) == sorted(re.findall(r'class="node (\w+)"', drawn))
    assert f"](figures/{source.stem}.svg)" in (ROOT / "docs/folding.md").read_text(encoding="utf-8")


def test_the_changelog_is_in_the_format_it_names() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "[Unreleased]"
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_decisions_carry_date_choice_reason_and_cost() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    entries = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"\d{4}-\d{2}-\d{2} · \S", entry), entry.splitlines()[0]
        for part in ("**Choice.**", "**Reason.**", "**Given up.**"):
            assert entry.count(part) == 1, (part, entry.splitlines()[0])
