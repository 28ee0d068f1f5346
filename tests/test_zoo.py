"""What scripts/zoo.py makes of measurements: what it asks for again, and when it is not content."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.append(str(SCRIPTS))

import pages  # noqa: E402  scripts/ is no package, it is found by the line above
import zoo  # noqa: E402
import zoo_double  # noqa: E402
import zoo_models  # noqa: E402
import zoo_page  # noqa: E402

OUTCOME: dict[str, Any] = {
    "norms": 9,
    "nodes_before": 30,
    "left": {"torch": 3, "onnxsim": 2, "bnfold": 1},
    "nodes": {"torch": 20, "onnxsim": 19, "bnfold": 18},
    "failed": {},
    "kept": {"ZERO-PAD": 1},
    "kept_sites": {"bn": "ZERO-PAD"},
}
DRAW: dict[str, Any] = {
    "difference": 1e-6,
    "rounding_before": 1e-6,
    "rounding_after": 1e-6,
    "runtimes": 1e-6,
    "double": 1e-15,
    "left": 1,
    "logit": 0.0,
}


def measured(draw: dict[str, Any] | None = None, **negative: Any) -> dict[str, Any]:
    """One network, with other numbers where some gammas are negative, in their second draw of two."""
    first, second = copy.deepcopy(DRAW), copy.deepcopy(DRAW) | (draw or {})
    return {
        "input": [1, 3, 8, 8],
        "bytes": 1000,
        "positive": copy.deepcopy(OUTCOME) | {"draws": [first]},
        "negative": copy.deepcopy(OUTCOME) | {"draws": [first, second], **negative},
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
        (
            {"draw": {"left": 3}},
            ["net, 15 % of the gammas negative: bnfold leaves 3 (1 × `ZERO-PAD`), onnxsim 2"],
        ),
        (
            {"draw": {"difference": 2e-4, "rounding_after": 1e-4}},
            ["net, 15 % of the gammas negative: difference 0.0002"],
        ),
        ({"draw": {"difference": 2e-4, "rounding_before": 1e-4, "rounding_after": 2e-4}}, []),
        ({"draw": {"double": 1e-7}}, ["net, 15 % of the gammas negative: difference 1e-06"]),
        ({"draw": {"double": float("nan")}}, ["net, 15 % of the gammas negative: difference 1e-06"]),
        ({"draw": {"difference": "no session"}}, ["net, 15 % of the gammas negative: difference no session"]),
        ({"failed": {"bnfold": "E"}, "left": {"torch": 3}}, ["net, 15 % of the gammas negative: E"]),
    ],
)
def test_what_the_zoo_is_not_content_with(negative: dict[str, Any], said: list[str]) -> None:
    assert zoo_page.shortfalls({"net": measured(**negative)}, {}) == said


def test_a_network_that_magnifies_rounding_errors_is_explained() -> None:
    draw = {"difference": 3e-4, "rounding_before": 2e-4, "rounding_after": 1e-4, "runtimes": 4e-4, "logit": 2e6}
    models = {"loud": measured(draw), "quiet": measured()}
    text = zoo_page.page({"machine": "a machine", "seed": 0, "draws": 2, "models": models})
    words = " ".join(text.split())
    assert "- `loud`: 1 of 3 draws above; bnfold's model is the closer to float64 in 3." in words
    assert "1.0e-06 (1.0e-06), 1.0e-06 (1.0e-06), 3.0e-04 (4.0e-04)" in words
    assert "What goes into a Softmax reaches 2.0e+06, where neighbouring float32 numbers are 1.2e-01 apart" in words
    assert "- `quiet`" not in words
    assert "| `loud` | 1×3×8×8 | 9 | 3 | 2 | – | – | 1 | 1.5e-04 | 3.0e-04 | 2.0e-04 | 1.0e-04 | 1.0e-15 |" in text


def test_norm_affines_have_a_table_of_their_own() -> None:
    entry = {
        "input": [1, 3, 8, 8],
        "affines": 5,
        "folded": 4,
        "kept": {"ZERO-PAD": 1},
        "nodes": 17,
        "nodes_plain": 17,
        "difference": 2e-7,
    }
    norms = {"vit": entry, "resnet": {}, "broken": {"error": "it cannot be exported"}}
    text = zoo_page.page({"machine": "a machine", "seed": 0, "draws": 1, "models": {}, "norm_affine": norms})
    assert "| `vit` | 1×3×8×8 | 5 | 4 | 1 × `ZERO-PAD` | 17 | 17 | 2.0e-07 |" in text
    assert "Together 4 of 5." in text
    assert "`resnet`" not in text
    assert zoo_page.shortfalls({}, norms) == ["broken, --norm-affine: it cannot be exported"]


def test_a_network_that_could_not_be_measured_is_a_shortfall_and_stands_on_the_page() -> None:
    models = {"broken": {"error": "it cannot be exported"}, "net": measured()}
    assert zoo_page.shortfalls(models, {}) == ["broken: it cannot be exported"]
    text = zoo_page.page({"machine": "a machine", "seed": 0, "draws": 1, "models": models})
    assert "- broken: it cannot be exported" in text
    row = "| `net` | 1×3×8×8 | 9 | 3 | 2 | – | – | 1 | 1.0e-06 | 1.0e-06 | 1.0e-06 | 1.0e-06 | 1.0e-15 |"
    assert row in text
    assert "leaves 2 of 9" in text


def test_only_what_is_missing_is_measured_again() -> None:
    net = measured()
    assert not zoo.complete({"error": "x"}, ["bnfold"], timed=False)
    assert zoo.complete(net, ["torch", "bnfold"], timed=False)
    assert not zoo.complete(net, ["onnxslim"], timed=False)
    assert not zoo.complete(net, ["bnfold"], timed=True)
    assert not zoo.complete(net, ["bnfold"], timed=False, draws=2)
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


def test_a_model_is_made_float64_as_a_whole_and_agrees_with_its_fold() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)),
        "g": np.ones(4),
        "b": np.ones(4),
        "m": np.zeros(4),
        "v": np.ones(4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, strides=[2, 1]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Gelu", ["n"], ["a"], approximate="tanh"),
        helper.make_node("Resize", ["a", "", "s"], ["r"]),
        helper.make_node("Softmax", ["r"], ["p"], axis=1),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), "s"))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, *side]) for name, n, side in SHAPES)
    graph = helper.make_graph(nodes, "net", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    wide = zoo_double.in_float64(model)
    onnx.checker.check_model(wide, full_check=True)
    assert {t.name for t in wide.graph.initializer if t.data_type != TensorProto.DOUBLE} == {"s"}
    feeds = {"x": rng.standard_normal((1, 3, 6, 5)).astype(np.float32)}
    found = zoo_double.exactness(model.SerializeToString(), feeds)
    assert found.difference <= 1e-12
    assert found.left == 0
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [expected] = session.run(None, feeds)
    doubled = {"x": feeds["x"].astype(np.float64)}
    [value] = ReferenceEvaluator(wide).run(None, doubled)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)


SHAPES = (("x", 3, (6, 5)), ("y", 4, (6, 10)))
