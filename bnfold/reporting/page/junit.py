"""The checks of a run as JUnit XML, which every CI system shows: one test case per check that was made."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from bnfold.reporting.page.words import number
from bnfold.wording import printable

LONGEST_TEXT = 2000

Case = tuple[str, str, tuple[str, ...], str]  # the group, the check, why it failed, why it was not made


def render_junit(run: Mapping[str, Any]) -> str:
    """The XML; a control character in a name, which XML cannot hold, is replaced as everywhere."""
    found = list(cases(run))
    failed, skipped = sum(bool(case[2]) for case in found), sum(bool(case[3]) for case in found)
    totals = {"tests": str(len(found)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    root = ET.Element("testsuites", {"name": _safe(f"bnfold {run.get('command', '')}".strip()), **totals})
    suite = ET.SubElement(root, "testsuite", {"name": _safe(PurePath(run["source"]["path"]).name), **totals})
    for group, check, failures, missing in found:
        case = ET.SubElement(suite, "testcase", classname=_safe(f"bnfold.{group}"), name=_safe(check))
        if failures:
            failure = ET.SubElement(case, "failure", message=_safe(failures[0]), type=group)
            failure.text = "\n".join(map(_safe, failures))
        if missing:
            ET.SubElement(case, "skipped", message=_safe(missing))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def cases(run: Mapping[str, Any]) -> Iterator[Case]:
    """Every check of a run."""
    checked = run.get("verification")
    if checked:
        yield "verification", "the same function", tuple(checked.get("failures") or ()), ""
        certificate = checked.get("certificate")
        missing = "" if certificate and certificate["proved"] else "not shown for all inputs"
        yield "verification", "proved for all inputs", (), missing
        for output in checked["outputs"]:
            said = f"output {output['name']} differs by {number(output['rel'])} of its scale"
            yield "outputs", said, (), ""
    elif run.get("command") == "convert":
        yield "verification", "the same function", (), "not verified"
    failures = list(run.get("failures") or ())
    for condition in run.get("conditions") or ():
        mine = tuple(failure for failure in failures if failure.startswith(f"--fail-on {condition}:"))
        failures = [failure for failure in failures if failure not in mine]
        yield "conditions", f"--fail-on {condition}", mine, ""
    for failure in failures:
        yield "conditions", failure.partition(": ")[0], (failure,), ""


def _safe(text: object) -> str:
    return printable(text, LONGEST_TEXT)
