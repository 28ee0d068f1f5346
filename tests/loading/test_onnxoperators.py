"""The standard's own examples pass the checks on bounds and operators; what breaks the standard is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import tiny
from onnx import AttributeProto, helper

from bnfold.errors import UnreadableError
from bnfold.loading.onnxbounds import check_bounds
from bnfold.loading.onnxoperators import check_operators

LIMIT = 10**9


def check(proto: onnx.ModelProto) -> None:
    check_bounds(proto, "m.onnx", LIMIT)
    check_operators(proto, "m.onnx")


def test_the_standards_own_examples_pass() -> None:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they overflow on purpose
        cases = load_model_tests(kind="node")
    assert len(cases) > 1000
    for case in cases:
        check(onnx.load(Path(case.model_dir) / "model.onnx") if case.model is None else case.model)


def _set(**fields: object) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        for key, value in fields.items():
            setattr(proto.graph.node[0], key, value)

    return change


def _without_an_operand(proto: onnx.ModelProto) -> None:
    del proto.graph.node[0].input[1:]


def _with_too_many_operands(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].input.append("x")


def _with_an_empty_operand(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[1] = ""


def _with_too_many_results(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].output.append("more")


def _with_an_attribute_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])


def _with_an_attribute_of_another_kind(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", "none"))


def _with_an_attribute_that_is_empty(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.add(name="own", type=AttributeProto.TENSOR)


def _with_a_text_that_is_none(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("auto_pad", b"\xff"))


def _without_an_attribute_it_needs(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].CopyFrom(helper.make_node("Cast", ["bn_out"], ["y"], name="relu"))


def _with_two_opsets(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 17))


def _without_the_standard(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].domain = "own"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_an_operand, "'conv' (Conv) has 1 operands"),
        (_with_too_many_operands, "'relu' (Relu) has 2 operands"),
        (_with_an_empty_operand, "'bn' (BatchNormalization) lacks an operand"),
        (_with_too_many_results, "'conv' (Conv) has 2 results"),
        (_with_an_attribute_twice, "'conv' has an attribute twice, or one without a name"),
        (_with_an_attribute_of_another_kind, "'conv' (Conv) has an attribute 'pads' of another kind"),
        (_with_an_attribute_that_is_empty, "'conv' has an empty attribute 'own'"),
        (_with_a_text_that_is_none, "'conv' (Conv) has an attribute 'auto_pad' of another kind"),
        (_without_an_attribute_it_needs, "'relu' (Cast) lacks the attribute 'to'"),
        (_with_two_opsets, "it names two opsets of ''"),
        (_without_the_standard, "'conv' (Conv) is an operator of the standard, of which no opset is named"),
        (_set(name=""), ""),
        (_set(domain="ai.onnx"), ""),
        (_set(op_type="Unknown"), ""),
    ],
)
def test_what_breaks_the_standard(change: Callable[[onnx.ModelProto], None], words: str) -> None:
    proto = tiny.conv_bn()
    change(proto)
    if not words:
        check(proto)
        return
    with pytest.raises(UnreadableError) as caught:
        check(proto)
    assert str(caught.value) == (
        f"error[UNREADABLE]: m.onnx is a damaged ONNX file: {words}\nDownload or export it again."
    )
