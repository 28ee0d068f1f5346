from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pagecases
import pytest
import reports

from bnfold.errors import UnreadableError, UnsupportedError, UsageError
from bnfold.reporting.page.formats import form_of, render
from bnfold.reporting.page.read import problem_of, read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    full = reports.report(accuracy=reports.ACCURACY, drift=reports.DRIFT, recalibration=reports.RECALIBRATION).to_dict()
    picture = pagecases.run_of("wide", str(tmp_path_factory.mktemp("run")))["picture"]
    short = {side: picture[side][:3] for side in ("before", "after", "weights")}
    return json.loads(json.dumps({**full, "picture": short}))  # type: ignore[no-any-return]


def test_what_was_written_is_read(run: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    assert read_run(path) == run


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "{path} is no JSON: JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        (b"[1]", "{path} is no run of bnfold: the file is no object"),
        (b"{}", "{path} is no run of bnfold: schema is missing"),
        (b'{"schema": 1e999}', "{path} is no JSON: ValueError: 1e999 is no number"),
        (b'{"schema": NaN}', "{path} is no JSON: ValueError: NaN is no number"),
        (b'{"schema": 1000000000000000000000000}', "{path} is no JSON: ValueError: 1000000000… is no number"),
        (b"[" * 100_000, "{path} is no JSON: RecursionError: maximum recursion depth exceeded"),
        (b"\xff\xfe", "{path} is no JSON"),
    ],
)
def test_what_is_no_run_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableError) as caught:
        read_run(path)
    assert caught.value.what.startswith(what.format(path=path))


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(UnreadableError, match=r"cannot read nowhere\.json: No such file or directory"):
        read_run("nowhere.json")


def test_another_schema_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"schema": 2}')
    with pytest.raises(UnsupportedError) as caught:
        read_run(path)
    assert str(caught.value) == (
        f"error[UNSUPPORTED]: {path} has schema 2, and this is bnfold for schema 1\n"
        "Use the version of bnfold that wrote it."
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value; of a list, the first item stands for all."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


WRONG: tuple[Any, ...] = (None, True, -1, 1.5, "text", "<b>", [], [None], {}, {"x": None})


def test_whatever_stands_somewhere_is_refused_or_shown(run: dict[str, Any]) -> None:
    """Each place of a run with each wrong value: what the reader lets through, every form of the report takes."""
    shown = refused = 0
    for place in places(run)[1:]:
        for wrong in WRONG:
            broken = copy.deepcopy(run)
            at: Any = broken
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = wrong
            if problem_of(broken):
                refused += 1
                continue
            shown += 1
            for form in ("html", "markdown", "junit"):
                render(form, broken)
    assert shown > 200
    assert refused > 1000


def test_whatever_is_missing_is_refused_or_not_measured(run: dict[str, Any]) -> None:
    for place in places(run)[1:]:
        broken = copy.deepcopy(run)
        at: Any = broken
        for key in place[:-1]:
            at = at[key]
        del at[place[-1]]
        if not problem_of(broken):
            for form in ("html", "markdown", "junit"):
                render(form, broken)


@pytest.mark.parametrize(
    ("path", "form"), [("a.html", "html"), ("A.HTM", "html"), ("s.md", "markdown"), ("j.xml", "junit")]
)
def test_the_suffix_picks_the_form(path: str, form: str) -> None:
    assert form_of(path) == form


def test_a_suffix_that_stands_for_nothing_is_said() -> None:
    with pytest.raises(UsageError) as caught:
        form_of("report.pdf")
    assert str(caught.value) == (
        "error[USAGE]: report.pdf has no suffix that stands for a report\n"
        "Use .html for a page, .md for Markdown, or .xml for JUnit."
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"before": [{"name": "a", "op": "b", "status": "same", "reads": [1]}]},
            "picture.before: a node reads what is not there",
        ),
        ({"weights": [{"name": "a", "op": "b", "bias": "none", "after": "same"}]}, "picture.weights: a has no weight"),
        (
            {"weights": [{"name": "a", "op": "b", "bias": "none", "after": "other"}]},
            "picture.weights[].after is no object",
        ),
    ],
)
def test_a_picture_must_hang_together(change: dict[str, Any], problem: str, run: dict[str, Any]) -> None:
    assert problem_of({**run, "picture": {**run["picture"], **change}}) == problem
