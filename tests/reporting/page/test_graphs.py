from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import onnx_ir as ir
import pagecases
import pytest
import tiny

from bnfold.errors import UsageError
from bnfold.frontends.onnx import fold_model
from bnfold.reporting.page.graphs import check_graph_file, render_graph
from bnfold.reporting.picture.drawn import drawn


def picture_of(model: Any) -> dict[str, Any]:
    opened = ir.from_proto(model)
    folded, plan = fold_model(opened)
    found = drawn(opened, folded, plan)
    assert found is not None
    return {"picture": found.to_dict()}


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return picture_of(tiny.conv_bn())


@pytest.fixture(scope="module")
def wide() -> dict[str, Any]:
    return picture_of(pagecases.wide_net())


def test_mermaid_is_a_flowchart(small: dict[str, Any]) -> None:
    assert render_graph("a.mmd", small).splitlines()[:9] == [
        "flowchart TD",
        '  n0["input x<br/>N×3×6×6"]',
        '  n1["Conv<br/>conv<br/>weights changed"]:::changed',
        '  n2["BatchNormalization<br/>bn<br/>folded"]:::folded',
        '  n3["Relu<br/>relu"]',
        '  n4["output y<br/>N×4×6×6"]',
        "  n0 --> n1",
        "  n1 --> n2",
        "  n2 --> n3",
    ]


def test_dot_is_a_digraph(small: dict[str, Any]) -> None:
    lines = render_graph("a.dot", small).splitlines()
    assert lines[0] == "digraph bnfold {"
    assert (
        '  n2 [label="BatchNormalization\\nbn\\nfolded", tooltip="bn", fillcolor="#dff1ee", color="#00695c"];' in lines
    )
    assert "  n1 -> n2;" in lines
    assert lines[-1] == "}"


def test_svg_has_a_box_and_a_title_for_every_operator(small: dict[str, Any]) -> None:
    root = ET.fromstring(render_graph("a.svg", small))
    space = "{http://www.w3.org/2000/svg}"
    titles = [title.text for title in root.iter(f"{space}title")]
    assert titles[1:] == ["input x", "conv", "bn", "relu", "output y"]
    assert len(list(root.iter(f"{space}path"))) == 4


def test_modules_are_nested_and_one_of_one_operator_is_that_operator(wide: dict[str, Any]) -> None:
    mermaid = render_graph("a.mmd", wide)
    assert 'subgraph g1["stage0"]' in mermaid
    assert 'subgraph g2["block0"]' in mermaid
    assert '["bn0"]' not in mermaid
    assert mermaid.count("subgraph ") == len(re.findall(r"^ *end$", mermaid, re.MULTILINE))
    dot = render_graph("a.dot", wide)
    assert dot.count("{") == dot.count("}")


def test_hostile_names_stay_inside_their_quotes(wide: dict[str, Any]) -> None:
    svg = ET.fromstring(render_graph("a.svg", wide))
    assert {element.tag.split("}")[1] for element in svg.iter()} == {"svg", "title", "rect", "g", "path", "text"}
    mermaid = render_graph("a.mmd", wide).splitlines()
    node = re.compile(r' *n\d+\["[^"<>`|]*(<br/>[^"<>`|]*)*"\](:::\w+)?')
    edge = re.compile(r"  n\d+ --> n\d+")
    group = re.compile(r' *(subgraph g\d+\["[^"<>`|]*"\]|end)')
    style = re.compile(r"  classDef \w+ fill:#\w+,stroke:#\w+")
    assert [line for line in mermaid[1:] if not any(p.fullmatch(line) for p in (node, edge, group, style))] == []
    for line in render_graph("a.dot", wide).splitlines():
        assert line.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 0
        assert line.isprintable()


def test_a_suffix_that_is_no_picture_is_said() -> None:
    with pytest.raises(UsageError) as caught:
        check_graph_file("graph.png")
    assert str(caught.value) == (
        "error[USAGE]: --graph graph.png has no suffix that stands for a picture\nUse one of: .svg, .mmd, .dot."
    )
