from __future__ import annotations

from typing import Any

import reports

import bnfold.reporting.page.sections as sections
from bnfold.reporting.page.facts import rows


def run(**changes: Any) -> dict[str, Any]:
    return reports.report(**changes).to_dict()


def test_what_was_not_measured_is_no_section() -> None:
    bare = run(verification=None, benchmark=None, operators_before=None, operators_after=None)
    made = (sections.errors, sections.latency, sections.accuracy, sections.weights, sections.operators)
    assert [section(bare) for section in made] == [None] * 5
    assert sections.layers(bare) == []


def test_flips_are_the_four_ways_a_row_can_go() -> None:
    found = sections.accuracy(run(accuracy=reports.ACCURACY))
    assert found is not None
    right, lost, gained, wrong = found["flips"]
    assert (lost, gained) == (reports.ACCURACY.lost, reports.ACCURACY.gained)
    assert right + lost == round(reports.ACCURACY.before * reports.ACCURACY.n)
    assert right + lost + gained + wrong == reports.ACCURACY.n


def test_a_forest_row_has_its_interval_and_its_control() -> None:
    found = sections.latency(run())
    assert found is not None
    [row] = found["rows"]
    assert row["low"] < row["x"] < row["high"]
    left, width = row["control"]
    assert left < found["axis"].at(1.0) < left + width
    assert found["columns"] == ["before", "after", "speed-up", "95 %"]


def test_one_model_alone_has_its_median_and_the_control() -> None:
    from bnfold.benchmark.bench import Timing

    found = sections.latency(run(benchmark=Timing((reports.SINGLE,), 1)))
    assert found is not None
    assert not found["paired"]
    assert found["rows"][0]["x"] is None
    assert found["rows"][0]["cells"] == [("median", "1.25 ms")]


def weight(name: str, before: list[float], after: list[float] | str) -> dict[str, Any]:
    def side(quantiles: list[float]) -> dict[str, Any]:
        return {"shape": [5, 1], "quantiles": quantiles, "profile": quantiles, "bias": None}

    changed = after if isinstance(after, str) else side(after)
    return {
        "name": name,
        "op": "Conv",
        "before": side(before),
        "after": changed,
        "moved": 0.5,
        "factor": None,
        "bias": "none",
    }


def test_weights_whose_spread_grew_most_come_first() -> None:
    made = run()
    made["picture"] = {
        "before": [],
        "after": None,
        "weights": [
            weight("same", [1, 1, 1, 1, 4], "same"),
            weight("grew", [1, 1, 1, 1, 1], [1, 1, 1, 1, 8]),
            weight("shrank", [1, 1, 1, 1, 8], [1, 1, 1, 1, 1]),
        ],
    }
    found = sections.weights(made)
    assert found is not None
    assert [(row["name"], row["lost_before"], row["lost_after"]) for row in found["rows"]] == [
        ("grew", "0.0", "3.0"),
        ("same", "2.0", "2.0"),
        ("shrank", "3.0", "0.0"),
    ]


def test_operators_are_counted_before_and_after() -> None:
    found = sections.operators(run())
    assert found is not None
    assert found["rows"] == [
        ["Conv", "3", "2", "-1"],
        ["BatchNormalization", "3", "1", "-2"],
        ["Relu", "2", "2", ""],
        ["total", "8", "5", "-3"],
    ]


def test_a_long_list_of_absorbers_is_cut() -> None:
    names = [f"c{i}" for i in range(7)]
    made = run()
    made["sites"][0]["into"] = names
    assert sections.site_rows(rows(made))[0]["into"] == "c0, c1, c2, c3 and 3 more"


def test_the_environment_names_both_files_and_their_hashes() -> None:
    found = dict(sections.environment(run()))
    assert (found["model"], found["SHA-256"]) == ("model.pt", "aa")
    assert (found["written to"], found["its SHA-256"]) == ("model.onnx", "bb")
    assert found["size"] == "2.05 kB → 1.02 kB"
    assert found["packages"] == "numpy 2.0"
