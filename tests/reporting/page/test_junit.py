from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pagecases
import pytest
import reports

from bnfold.reporting.page.junit import render_junit


def cases(**changes: Any) -> dict[str, ET.Element]:
    root = ET.fromstring(render_junit(reports.report(**changes).to_dict()).encode())
    assert root.tag == "testsuites"
    [suite] = root
    found = {case.get("name") or "": case for case in suite}
    for part in (root, suite):
        assert part.get("tests") == str(len(found))
        assert part.get("failures") == str(sum(case.find("failure") is not None for case in found.values()))
        assert part.get("skipped") == str(sum(case.find("skipped") is not None for case in found.values()))
    return found


def test_every_check_is_a_case() -> None:
    found = cases(conditions=("kept>0", "error.rel>1"), failures=("--fail-on kept>0: kept is 1",))
    assert list(found) == [
        "the same function",
        "proved for all inputs",
        "output y differs by 2.5e-7 of its scale",
        "--fail-on kept>0",
        "--fail-on error.rel>1",
    ]
    failure = found["--fail-on kept>0"].find("failure")
    assert failure is not None
    assert failure.get("message") == "--fail-on kept>0: kept is 1"
    assert found["--fail-on error.rel>1"].find("failure") is None
    assert found["proved for all inputs"].find("skipped") is not None


def test_a_failed_verification_says_why() -> None:
    failure = cases(verification=reports.FAILED)["the same function"].find("failure")
    assert failure is not None
    assert failure.text == "output 'y': the largest difference is 0.5"


def test_what_was_not_verified_was_skipped() -> None:
    assert cases(verification=None)["the same function"].find("skipped") is not None
    assert cases(verification=None, command="inspect") == {}


def test_a_condition_that_is_the_beginning_of_another_is_not_taken_for_it() -> None:
    found = cases(conditions=("kept>1", "kept>10"), failures=("--fail-on kept>10: kept is 12",))
    assert found["--fail-on kept>1"].find("failure") is None
    assert found["--fail-on kept>10"].find("failure") is not None


@pytest.mark.parametrize("name", [*pagecases.HOSTILE, "\x00\x0b\ufffe\ud800"])
def test_hostile_names_are_text(name: str) -> None:
    run = reports.report(failures=(name,)).to_dict()
    run["source"]["path"] = run["verification"]["outputs"][0]["name"] = name
    text = render_junit(run)
    assert {element.tag for element in ET.fromstring(text.encode()).iter()} <= {
        "testsuites",
        "testsuite",
        "testcase",
        "failure",
        "skipped",
    }
