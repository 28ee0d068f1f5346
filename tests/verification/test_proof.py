"""What the certificate adds to a verdict: a proof, a name for what is wrong, or "only compared by running"."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper, numpy_helper

from bnfold import certificate, verify


def slightly_off(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """The model with its first weight off by a part of its value."""
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] *= 1 + by
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def test_a_right_fold_is_proved() -> None:
    verdict = verify(tiny.conv_bn(), tiny.folded())
    assert (verdict.passed, verdict.proved, verdict.level) == (True, True, "full")
    assert verdict.to_dict()["certificate"]["proved"] is True


def test_the_quick_level_proves_nothing() -> None:
    verdict = verify(tiny.conv_bn(), tiny.folded(), level="quick")
    assert (verdict.passed, verdict.proved, verdict.certificate) == (True, False, None)


def test_a_weight_that_no_tolerance_sees_is_named() -> None:
    wrong = slightly_off(tiny.folded(), 1e-5)
    assert verify(tiny.conv_bn(), wrong, level="quick").passed
    verdict = verify(tiny.conv_bn(), wrong)
    assert not verdict.passed
    (failure,) = verdict.failures
    assert failure.startswith("at ")
    assert "weights disagree by" in failure


def test_who_gives_a_tolerance_is_only_told() -> None:
    verdict = verify(tiny.conv_bn(), slightly_off(tiny.folded(), 1e-5), rtol=1e-3)
    assert verdict.passed
    assert not verdict.proved
    assert "weights disagree by" in verdict.notes[0]


def test_what_is_not_understood_is_compared_by_running() -> None:
    """A product written as another operator has no counterpart, though it is the same function."""
    shape = {"shape": ("N", 3), "out_shape": ("N", 3)}
    before = tiny.model([helper.make_node("Abs", ["x"], ["y"], name="absolute")], {}, **shape)
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Max", ["x", "n"], ["y"], name="larger")]
    verdict = verify(before, tiny.model(nodes, {}, **shape))
    assert verdict.passed
    assert not verdict.proved
    assert verdict.notes[0].startswith("not proved as a whole: 1 part of the model could only be compared by running")


def test_a_certificate_that_fails_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(certificate, "certify", broken)
    verdict = verify(tiny.conv_bn(), tiny.folded())
    assert verdict.passed
    assert not verdict.proved
    assert verdict.notes == ("not proved, only compared by running: RuntimeError: a mistake of ours",)


def test_a_constant_that_is_handed_out_must_be_the_same() -> None:
    shape = {"shape": ("N", 3), "out_shape": ("N", 3)}
    models = [
        tiny.model([helper.make_node("Add", ["x", "c"], ["y"])], {"c": np.array([value], np.float32)}, **shape)
        for value in (1.0, 1.00002)
    ]
    assert not verify(*models).passed
