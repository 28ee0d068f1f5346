from __future__ import annotations

import onnx_ir as ir
import pytest
import tiny
from onnx import helper

from bnfold.reporting.picture.from_onnx import view_onnx
from bnfold.reporting.picture.views import Operator, in_modules, shape_text


def paths_of(name: str, metadata: dict[str, str] | None = None, weight: str = "weight") -> tuple[str, ...]:
    numbers = {weight: tiny.parameters(4, 0)["weight"]}
    node = helper.make_node("Conv", ["x", weight], ["y"], name=name)
    for key, value in (metadata or {}).items():
        node.metadata_props.add(key=key, value=value)
    model = tiny.model([node], numbers, shape=(1, 3, 6, 6), out_shape=(1, 4, 4, 4))
    return view_onnx(ir.from_proto(model)).operators[1].path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("conv", ()),
        ("layer1.0.conv1", ("layer1", "0", "conv1")),
        ("layer1.0.conv1#2", ("layer1", "0", "conv1")),
        ("/layer1/layer1.0/conv1/Conv", ("layer1", "layer1.0", "conv1")),
        ("model/block/Conv2D", ("model", "block")),
        ("..", ()),
        ("/", ()),
    ],
)
def test_a_name_spells_the_modules_around_an_operator(name: str, path: tuple[str, ...]) -> None:
    assert paths_of(name) == path


def test_what_torch_noted_comes_first() -> None:
    noted = {"pkg.torch.onnx.name_scopes": "['', 'stem', 'stem.conv', 'conv2d']"}
    assert paths_of("a.b", noted) == ("stem", "conv")


@pytest.mark.parametrize(
    "text", ["", "[", "['x']", "__import__('os')", "[" * 5000, "7", "['', '_empty_nn_module_stack_x', 'y']"]
)
def test_a_note_that_is_none_is_left_aside(text: str) -> None:
    assert paths_of("a.b", {"pkg.torch.onnx.name_scopes": text}) == ("a", "b")


def test_the_name_of_the_weight_is_the_last_resort() -> None:
    assert paths_of("Conv_7", weight="layer1.conv.weight") == ("layer1", "conv")


def test_an_operator_without_a_module_goes_with_what_it_reads() -> None:
    found = in_modules(
        [
            Operator("a", "Sigmoid", (), ("block", "act")),
            Operator("b", "Mul", (0,)),
            Operator("c", "BatchNormalization", (1,), ("block", "bn")),
            Operator("d", "Relu", (2,)),
        ]
    )
    assert [op.path for op in found.operators] == [("block", "act"), ("block", "act"), ("block", "bn"), ("block",)]


def test_a_long_graph_that_says_nothing_is_cut_into_parts() -> None:
    found = in_modules([Operator("x", "Input"), *(Operator(f"n{i}", "Relu", (i,)) for i in range(60))])
    assert [op.path for op in found.operators[:2]] == [(), ("part 1",)]
    assert found.operators[-1].path == ("part 3",)


def test_a_short_one_is_not() -> None:
    found = in_modules([Operator(f"n{i}", "Relu", (i - 1,) if i else ()) for i in range(40)])
    assert {op.path for op in found.operators} == {()}


def test_shapes_are_read_as_they_are_written() -> None:
    assert shape_text((1, "batch", None)) == "1×batch×?"
    assert shape_text(()) == ""
    assert shape_text(None) == ""
