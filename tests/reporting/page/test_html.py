from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pagecases
import pytest
import reports

from bnfold.reporting.page.html import inert_json, policy, render_html
from bnfold.reporting.page.read import problem_of

COMMANDS: dict[str, dict[str, Any]] = {
    "convert": {"accuracy": reports.ACCURACY, "recalibration": reports.RECALIBRATION},
    "rejected": {"verification": reports.FAILED, "output": None, "rejected": "model.onnx.rejected"},
    "unverified": {"verification": None, "benchmark": None},
    "inspect": {"command": "inspect", "verification": None, "benchmark": None, "output": None, "operators_after": None},
    "verify": {"command": "verify", "plan": None, "benchmark": None},
    "bench": {"command": "bench", "plan": None, "verification": None},
    "drift": {"command": "drift", "plan": None, "verification": None, "benchmark": None, "drift": reports.DRIFT},
    "module": {"command": "verify", "plan": None, "operators_before": None, "operators_after": None},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_page(name: str) -> None:
    run = json.loads(json.dumps(reports.report(**COMMANDS[name]).to_dict()))
    assert problem_of(run) == ""
    page = render_html(run)
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<h1") == 1
    for key in re.findall(r'<li><a href="#([^"]+)">', page):
        assert page.count(f'id="{key}"') == 1


def test_a_run_with_the_least_there_can_be_has_a_page() -> None:
    run = {"schema": 1, "source": {"path": "m.onnx", "sha256": ""}, "counts": {}, "sites": []}
    assert problem_of(run) == ""
    assert "m.onnx" in render_html(run)


def test_what_other_versions_add_is_shown_where_it_is_known() -> None:
    run = reports.report().to_dict()
    side = {"p90_ms": 1.5, "p99_ms": 2.5, "load_ms": 3.0, "first_ms": 4.0, "peak_bytes": None}
    run["benchmark"]["rows"][0] |= {"device": "cuda", "before": side, "after": side, "noise": []}
    run["benchmark"]["warnings"] = ["the machine was busy"]
    run["verification"]["sites"] = [
        {
            "site": "bn1",
            "node": "conv1",
            "state": "same",
            "gap": 1e-9,
            "accumulated": 2e-7,
            "before": 1e-7,
            "local": None,
        },
        {"site": "bn2", "node": "conv2", "state": "unit", "gap": 0.87, "accumulated": None, "before": None},
    ]
    assert problem_of(json.loads(json.dumps(run))) == ""
    page = render_html(run)
    for text in ("1.5 → 1.5 ms", "the machine was busy", "2e-7", "2 threads, cuda"):
        assert text in page
    assert "other unit" in page
    assert "0.87" not in page.partition("<script")[0]  # the run itself, to download, keeps it
    assert "Per-site drift was not measured" not in page


def test_the_policy_names_exactly_what_stands_in_the_page() -> None:
    page = render_html(reports.report().to_dict())
    [said] = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    said = said.replace("&#39;", "'")
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(styles) == 1
    assert len(scripts) == 2
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in (*scripts, *styles)]
    assert re.findall(r"'sha256-[^']+'", said) == hashes
    assert said.startswith("default-src 'none'; ")
    assert "unsafe" not in said
    assert policy(scripts, styles[0]) == said


def test_nothing_in_the_page_is_an_address_or_runs_from_an_attribute() -> None:
    page = render_html(reports.report().to_dict())
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r"\b(?:src|srcset|action|style|on[a-z]+)=", body) == []
    assert "sourceMappingURL" not in page
    assert {href for href in re.findall(r'href="([^"]+)"', body) if not href.startswith("#")} == set()
    assert "Copyright (c) 2012-2014 Chris Pettitt" in page  # its license asks for that


@pytest.mark.parametrize("name", pagecases.HOSTILE)
def test_hostile_names_are_escaped_everywhere(name: str) -> None:
    from bnfold.planning.plan import Plan, Site
    from bnfold.reasons import Reason

    site = Site(name, name, "kept", (name,), Reason.IO)
    run = reports.report(plan=Plan((site,), (site,)), notes=(name,), failures=(name,)).to_dict()
    run["source"]["path"] = run["output"]["path"] = name
    run["benchmark"]["rows"][0] |= {"runtime": name, "verdict": name}
    run["operators"]["before"] = {name: 1}
    page = render_html(run)
    assert page.count("<script") == 4
    assert page.count("</script") == 4
    assert not re.search(r"<(img|svg/|iframe)", page)
    visible = re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert all(char.isprintable() or char == "\n" for char in visible)


def test_json_in_a_page_says_the_same_and_ends_nothing() -> None:
    value = {"a": "</script><!-- & \u2028 é", "b": [1, 2.5, None, True]}
    text = inert_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028é")
