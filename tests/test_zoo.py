"""What scripts/zoo.py makes of measurements: what it asks for again, and when it is not content."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.append(str(SCRIPTS))

import pages  # noqa: E402  scripts/ is no package, it is found by the line above
import zoo  # noqa: E402
import zoo_models  # noqa: E402
import zoo_page  # noqa: E402

OUTCOME = {
    "norms": 9,
    "nodes_before": 30,
    "left": {"torch": 3, "onnxsim": 2, "bnfold": 1},
    "nodes": {"torch": 20, "onnxsim": 19, "bnfold": 18},
    "failed": {},
    "kept": {"ZERO-PAD": 1},
    "kept_sites": {"bn": "ZERO-PAD"},
    "difference": 1e-6,
    "rounding_before": 1e-6,
    "rounding_after": 1e-6,
}


def measured(**negative: Any) -> dict[str, Any]:
    """One network, with other numbers where some gammas are negative."""
    return {
        "input": [1, 3, 8, 8],
        "bytes": 1000,
        "positive": copy.deepcopy(OUTCOME),
        "negative": {**copy.deepcopy(OUTCOME), **negative},
    }


@pytest.mark.parametrize(
    ("negative", "said"),
    [
        ({}, []),
        ({"left": {"onnxsim": 1, "bnfold": 1}}, []),
        (
            {"left": {"torch": 3, "onnxsim": 0, "bnfold": 1}},
            ["net, 15 % of the gammas negative: bnfold leaves 1 (1 × `ZERO-PAD`), onnxsim 0"],
        ),
        ({"difference": 2e-4}, ["net, 15 % of the gammas negative: difference 0.0002"]),
        ({"difference": 2e-4, "rounding_before": 1e-4, "rounding_after": 2e-4}, []),
        ({"difference": "no session"}, ["net, 15 % of the gammas negative: difference no session"]),
        ({"failed": {"bnfold": "E"}, "left": {"torch": 3}}, ["net, 15 % of the gammas negative: E"]),
    ],
)
def test_what_the_zoo_is_not_content_with(negative: dict[str, Any], said: list[str]) -> None:
    if "difference" in negative:
        negative = {"rounding_before": 1e-6, "rounding_after": 1e-4, **negative}
    assert zoo_page.shortfalls({"net": measured(**negative)}) == said


def test_a_network_that_could_not_be_measured_is_a_shortfall_and_stands_on_the_page() -> None:
    models = {"broken": {"error": "it cannot be exported"}, "net": measured()}
    assert zoo_page.shortfalls(models) == ["broken: it cannot be exported"]
    text = zoo_page.page({"machine": "a machine", "seed": 0, "models": models})
    assert "- broken: it cannot be exported" in text
    assert "| `net` | 1×3×8×8 | 9 | 3 | 2 | – | – | 1 | 1.0e-06 | 1.0e-06 | 1.0e-06 |" in text
    assert "leaves 2 of 9" in text


def test_only_what_is_missing_is_measured_again() -> None:
    net = measured()
    assert not zoo.complete({"error": "x"}, ["bnfold"], timed=False)
    assert zoo.complete(net, ["torch", "bnfold"], timed=False)
    assert not zoo.complete(net, ["onnxslim"], timed=False)
    assert not zoo.complete(net, ["bnfold"], timed=True)
    assert zoo.complete({**net, "seconds": {"bnfold": [1.0]}}, ["torch", "bnfold"], timed=True)


def test_tools_that_were_not_measured_again_stay() -> None:
    again = measured()
    again["positive"] |= {"left": {"bnfold": 0}, "nodes": {"bnfold": 17}, "kept": {}, "kept_sites": {}}
    result = zoo.merged(measured(), again)
    assert result["positive"]["left"] == {"torch": 3, "onnxsim": 2, "bnfold": 0}
    assert result["positive"]["kept"] == {}
    assert zoo.merged({"error": "x"}, again) == again


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("timm:resnet50", ("timm", "resnet50", None)),
        ("resnet50@96x64", ("timm", "resnet50", (1, 3, 96, 64))),
        ("torchvision:resnet18@32x32", ("torchvision", "resnet18", (1, 3, 32, 32))),
    ],
)
def test_networks_are_named_with_source_and_size(text: str, entry: tuple[str, str, tuple[int, ...] | None]) -> None:
    assert zoo_models.parse_entry(text) == zoo_models.Entry(*entry)


def test_a_clone_without_a_list_measures_what_was_measured(tmp_path: Path) -> None:
    pages.write_json(tmp_path / "zoo.json", {"models": {"timm:net": measured(), "timm:broken": {"error": "x"}}})
    assert zoo_models.measured_before(tmp_path / "zoo.json") == [zoo_models.Entry("timm", "net", (1, 3, 8, 8))]
    assert zoo_models.measured_before(tmp_path / "none.json") == []


def test_a_section_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nwords\n")
    pages.write_section(page, "one", "first")
    pages.write_section(page, "two", "second")
    pages.write_section(page, "one", "third")
    assert page.read_text() == (
        "# Title\n\nwords\n\n<!-- one: begin -->\nthird\n<!-- one: end -->\n"
        "\n<!-- two: begin -->\nsecond\n<!-- two: end -->\n"
    )
