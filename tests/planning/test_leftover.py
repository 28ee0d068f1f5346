"""BatchNorms that stay, in other operators: exact, none left that could be written so, and settled at once."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from leftovers import check_settled, fold, ops
from onnx import numpy_helper
from property.examples import EXAMPLES, Example
from property.spec import Spec
from property.to_onnx import to_onnx
from test_property import campaign, check_exact

from bnfold.errors import UsageError
from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices
from bnfold.planning.leftover import check_leftover, said

NOT_AN_AFFINE = {"TRAINING", "NOT-CONSTANT", "BOUNDARY", "DTYPE"}


def is_tame(proto: onnx.ModelProto) -> bool:
    """Whether no gamma is 0 or nearly so.

    The solver knows more ways out for a Mul by 0 than for a BatchNorm with a gamma of 0, and of an Add it cannot tell
    that its shift is large: there a second fold may find something.
    """
    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    norms = [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
    return all(np.abs(arrays[node.input[1]]).min() > 1e-6 for node in norms if node.input[1] in arrays)


def check_spec(leftover: str, spec: Spec) -> None:
    before = to_onnx(spec)
    after, plan = fold(before, leftover)
    check_exact(spec, before, after)
    if is_tame(before):
        check_settled(after, leftover)
    assert [site.status for site in plan.sites] == [site.status for site in fold_model(ir.from_proto(before))[1].sites]
    refused = sum(site.reason is not None and site.reason.code in NOT_AN_AFFINE for site in plan.sites)
    assert ops(after).count("BatchNormalization") <= refused


@pytest.mark.parametrize("leftover", ["affine", "conv"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_theorem(example: Example, leftover: str) -> None:
    check_spec(leftover, example.spec)


test_exact_affine = campaign(11, lambda spec: check_spec("affine", spec), 100, anything=True)
test_exact_conv = campaign(12, lambda spec: check_spec("conv", spec), 100, anything=True)


def test_what_became_of_them_is_said() -> None:
    assert said("keep", 3, 3) == said("affine", 0, 0) == ()
    form = "Mul and Add, or as one of them where that is enough"
    assert said("affine", 1, 0) == (f"the BatchNorm that stays is written as {form}",)
    assert said("conv", 2, 0) == ("the 2 BatchNorms that stay are written as a depthwise 1×1 Conv",)
    assert said("conv", 1, 1) == ("the BatchNorm that stays cannot be written as a depthwise 1×1 Conv",)
    assert said("affine", 3, 1) == (
        f"2 of the 3 BatchNorms that stay are written as {form}; 1 cannot be, and stays as it is",
    )
    assert said("affine", 3, 2) == (
        f"1 of the 3 BatchNorms that stay is written as {form}; 2 cannot be, and stay as they are",
    )


@pytest.mark.parametrize(("name", "guess"), [("afine", "Did you mean affine? "), ("mul", "")])
def test_another_leftover_is_refused(name: str, guess: str) -> None:
    for call in (
        check_leftover,
        lambda leftover: fold_model(ir.from_proto(to_onnx(EXAMPLES[0].spec)), Choices(leftover=leftover)),
    ):
        with pytest.raises(UsageError) as caught:
            call(name)
        assert str(caught.value) == (
            f"error[USAGE]: no leftover is called {name!r}\n{guess}There are: keep, affine, conv."
        )
