from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import reports

from bnfold.benchmark.bench import Timing
from bnfold.planning.plan import Plan
from bnfold.reporting.page.facts import rows, tiles, verdict
from bnfold.verification.verify import Verdict

PROVED = {"certificate": {"proved": True, "operators": 3, "ulps": 0.5, "problems": [], "assumed": []}}


def run(**changes: Any) -> dict[str, Any]:
    return reports.report(**({"benchmark": None} | changes)).to_dict()


def all_folded() -> Plan:
    return Plan((reports.FOLDED, reports.MERGED))


@pytest.mark.parametrize(
    ("changes", "state", "sentence"),
    [
        ({}, "mixed", "2 of 3 BatchNorms folded, 1 stays; the same function on 4 inputs."),
        ({"plan": all_folded()}, "good", "All 2 BatchNorms folded; the same function on 4 inputs."),
        ({"plan": Plan((reports.FOLDED,))}, "good", "Its only BatchNorm folded; the same function on 4 inputs."),
        ({"plan": Plan((reports.KEPT,))}, "mixed", "Its only BatchNorm stays; the same function on 4 inputs."),
        (
            {"plan": Plan((reports.KEPT, reports.KEPT))},
            "mixed",
            "All 2 BatchNorms stay; the same function on 4 inputs.",
        ),
        ({"plan": Plan(())}, "good", "No BatchNorm to fold; the same function on 4 inputs."),
        (
            {"plan": Plan((), (reports.SCALE,))},
            "good",
            "No BatchNorm, 1 other affine folded; the same function on 4 inputs.",
        ),
        ({"verification": None}, "mixed", "2 of 3 BatchNorms folded, 1 stays; not verified."),
        ({"verification": reports.FAILED}, "bad", "Rejected: 2 of 3 BatchNorms folded, 1 stays, and a check failed."),
        ({"command": "inspect", "verification": None}, "mixed", "2 of 3 BatchNorms would fold, 1 stays."),
        ({"command": "verify", "plan": None}, "good", "The same function on 4 inputs."),
        ({"command": "verify", "plan": None, "verification": reports.FAILED}, "bad", "Not the same function."),
        (
            {"command": "drift", "plan": None, "verification": None, "drift": reports.DRIFT},
            "mixed",
            "1 of 2 BatchNorms drifted from deployed.npz.",
        ),
    ],
)
def test_the_verdict_is_one_sentence(changes: dict[str, Any], state: str, sentence: str) -> None:
    found = verdict(run(**changes))
    if "plan" in changes and changes["plan"] is not None:
        found = verdict(
            {**run(**changes), "counts": {**run(**changes)["counts"], "batch_norms": changes["plan"].batch_norms}}
        )
    assert (found.state, found.sentence) == (state, sentence)


def test_a_proof_is_said() -> None:
    proved = run()
    proved["verification"] |= PROVED
    assert verdict(proved).sentence == (
        "2 of 3 BatchNorms folded, 1 stays; proved to be the same function for all inputs."
    )


def test_what_failed_is_listed() -> None:
    failed = run(verification=reports.FAILED, failures=("--fail-on kept>0: kept is 1",))
    assert verdict(failed).failures == ("output 'y': the largest difference is 0.5", "--fail-on kept>0: kept is 1")


def test_timings_are_part_of_the_sentence_where_they_are_clear() -> None:
    timed = reports.report().to_dict()
    assert verdict(timed).sentence.endswith("on 4 inputs; 1.25× as fast in ort.")
    row = timed["benchmark"]["rows"][0]
    for ends in ({"low": 1.01}, {"low": 0.9}, {"control_high": 1.21}, {"low": None}):  # within 1 or the control
        timed["benchmark"]["rows"] = [{**row, **ends}]
        assert verdict(timed).sentence.endswith("; as fast as before.")
    timed["benchmark"]["rows"] = [{**row, "speedup": 0.8, "low": 0.7, "high": 0.9}]
    assert verdict(timed).sentence.endswith("; 0.8× as fast in ort.")


def test_a_benchmark_alone_is_its_sentence() -> None:
    alone = {"command": "bench", "plan": None, "verification": None}
    assert verdict(reports.report(**alone).to_dict()).sentence == "1.25× as fast in ort."
    single = reports.report(**alone, benchmark=Timing((reports.SINGLE,), 1)).to_dict()
    assert verdict(single).sentence == "1.25 ms in ort."


def test_tiles_say_what_was_and_what_is() -> None:
    shown = {
        tile.title: (tile.before, tile.value) for tile in tiles(reports.report(accuracy=reports.ACCURACY).to_dict())
    }
    assert shown == {
        "BatchNorms": ("3", "1"),
        "Operators": ("8", "5"),
        "Size": ("2.05 kB", "1.02 kB"),
        "Largest difference": ("", "2.5e-7"),
        "Speed, ort": ("", "1.25×"),
        "top1": ("98.80 %", "98.60 %"),
    }


def test_the_error_is_compared_where_it_was_measured() -> None:
    exact = replace(reports.PASSED.outputs[0], error_before=1e-7, error_after=2e-7, ratio=2.0)
    shown = {tile.title: tile.value for tile in tiles(run(verification=Verdict(True, "full", 4, (exact,))))}
    assert shown["Rounding error"] == "2.00×"


def test_rows_are_the_sites_with_their_reasons() -> None:
    found = rows(run())
    assert [(row.name, row.status, row.code) for row in found] == [
        ("bn1", "folded", ""),
        ("bn2", "merged", ""),
        ("bn3", "kept", "ZERO-PAD"),
    ]


def test_without_a_plan_rows_come_from_the_picture() -> None:
    nodes = [{"name": "a", "op": "BatchNormalization", "status": s} for s in ("gone", "same")]
    both = {**run(plan=None), "picture": {"before": nodes, "after": [], "weights": []}}
    assert [row.status for row in rows(both)] == ["gone", "kept"]
    alone = {**run(plan=None), "picture": {"before": nodes[1:], "after": None, "weights": []}}
    assert [row.status for row in rows(alone)] == ["same"]
    assert rows(run(plan=None)) == []
