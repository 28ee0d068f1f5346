"""Verification of PyTorch networks, alone, against each other and against ONNX."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnx_ir
import pytest
import tiny
import torch
from networks import Counting, TwoHeads, conv_bn, damaged, exported
from torch import nn

import bnfold
from bnfold import verify
from bnfold.errors import UnsafeError, UnsupportedError, UsageError
from bnfold.quiet import quiet

X = torch.randn(2, 3, 6, 6)


def forms(module: nn.Module) -> dict[str, Any]:
    """One network in every form that can be run."""
    program = exported(module, X)
    with quiet():
        made = torch.onnx.export(program, (), dynamo=True, optimize=False, verbose=False)
    assert made is not None
    return {
        "module": module,
        "program": program,
        "onnx_ir": made.model,
        "proto": onnx_ir.to_proto(made.model),
        "graph": bnfold.fold(module, X, prefer="graph").model,
        "compiled": torch.compile(module, backend="eager"),
    }


FORMS = ("module", "program", "onnx_ir", "proto", "graph", "compiled")


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    return forms(conv_bn())


@pytest.fixture(scope="module")
def wrong() -> dict[str, Any]:
    return forms(damaged(conv_bn()))


@pytest.mark.parametrize("before", FORMS)
@pytest.mark.parametrize("after", FORMS)
def test_any_two_forms_of_one_network_are_the_same_function(
    before: str, after: str, right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    x = X.numpy()
    assert verify(right[before], right[after], x, level="quick")
    assert not verify(right[before], wrong[after], x, level="quick")


def test_a_folded_module_is_the_same_function() -> None:
    module = conv_bn()
    verdict = verify(module, bnfold.fold(module, X).model, X)
    assert verdict.passed
    assert verdict.inputs == 1
    assert [output.name for output in verdict.outputs] == ["output"]
    assert 0 < verdict.outputs[0].rel < 1e-6


def test_programs_are_run_on_drawn_inputs_of_several_batches() -> None:
    program = exported(conv_bn(), X)
    assert verify(program, bnfold.fold(program).model).inputs == 4
    fixed = exported(conv_bn(), X, dynamic=False)
    assert verify(fixed, bnfold.fold(fixed).model).inputs == 3


def test_a_program_of_fewer_batches_than_are_tried_is_run_at_its_own() -> None:
    with quiet():
        dims = ({0: torch.export.Dim("n", min=4, max=8)},)
        program = torch.export.export(conv_bn(), (torch.randn(5, 3, 6, 6),), dynamic_shapes=dims)
    verdict = verify(program, program)
    assert (verdict.passed, verdict.inputs) == (True, 3)


def test_open_sizes_that_nobody_gives_are_those_of_the_export() -> None:
    dims = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},)
    with quiet():
        program = torch.export.export(conv_bn(), (X,), dynamic_shapes=dims)
    assert verify(program, program).passed


def test_a_dimension_that_became_fixed_fails() -> None:
    verdict = verify(exported(conv_bn(), X), exported(conv_bn(), X, dynamic=False))
    assert verdict.failures == ("input 'input': its shape is ?×3×6×6 before and 2×3×6×6 after",)
    assert verify(exported(conv_bn(), X, dynamic=False), exported(conv_bn(), X)).passed


def test_nested_arguments_and_results_have_names() -> None:
    xs = [torch.randn(3, 4), torch.randn(3, 4)]
    verdict = verify(TwoHeads(), copy.deepcopy(TwoHeads()), (xs,))
    assert verdict.passed
    assert [output.name for output in verdict.outputs] == ["output_logits", "output_rest_0"]
    assert verify(TwoHeads(), TwoHeads(), {"xs": xs, "flip": True}).passed
    with quiet():
        program = torch.export.export(TwoHeads(), (xs,), {"flip": True})
    assert verify(program, program, {"xs_0": xs[0], "xs_1": xs[1].numpy()}).passed
    assert verify(program, TwoHeads(), {"xs": xs, "flip": True}).passed
    assert not verify(program, TwoHeads(), {"xs": xs}).passed


def test_another_number_of_inputs_or_outputs_fails() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    both, one = Both().eval(), nn.Identity().eval()
    assert verify(both, one, X).failures == ("the outputs are ['output_0', 'output_1'] before and ['output'] after",)
    failed = verify(exported(Sum().eval(), X, X), exported(one, X))
    assert failed.failures == ("input 'x' is missing after", "input 'y' is missing after", "input 'input' is new after")
    assert verify(Sum().eval(), exported(one, X), (X, X)).failures == (
        "the inputs are ['x', 'y'] before and ['input'] after",
    )


def test_inputs_of_the_same_names_go_together_in_whatever_order() -> None:
    class Difference(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x - y

    node = onnx.helper.make_node("Sub", ["x", "y"], ["z"])
    x, y, z = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (2,)) for name in "xyz")
    graph = onnx.helper.make_graph([node], "difference", [y, x], [z])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    assert verify(Difference().eval(), model, (torch.tensor([1.0, 2.0]), torch.tensor([4.0, 8.0])))
    assert verify(model, Difference().eval())


def test_a_network_with_a_state_is_left_as_it_was_and_sees_the_same_each_time() -> None:
    module, x = Counting(), torch.ones(3)
    assert verify(module, copy.deepcopy(module), x).passed
    assert module.calls == 0
    assert torch.equal(x, torch.ones(3))
    state = torch.get_rng_state()
    verify(module, module, x)
    assert torch.equal(state, torch.get_rng_state())


def test_dtypes_numpy_has_no_name_for() -> None:
    module = conv_bn().bfloat16()
    assert verify(module, bnfold.fold(module, X.bfloat16()).model, X.bfloat16()).passed
    program = exported(module, X.bfloat16())
    assert verify(program, bnfold.fold(program).model).passed
    assert not verify(module, conv_bn(), X.bfloat16(), rtol=1.0)


def test_a_wrong_fold_of_a_module_names_the_difference() -> None:
    difference, weight = verify(conv_bn(), damaged(conv_bn()), X).failures
    assert difference.startswith("output 'output': the largest difference is ")
    assert weight.startswith("at '2/Relu': channel 0: weights disagree by ")


def test_a_module_knows_its_inputs_by_itself_or_from_the_other_model() -> None:
    module = conv_bn()
    assert verify(tiny.conv_bn(), tiny_module()).passed
    assert verify(tiny_module(), tiny.conv_bn()).passed
    module.example_input_array = X
    assert verify(module, copy.deepcopy(module)).inputs == 3


def tiny_module() -> nn.Module:
    """The function of `tiny.conv_bn` in PyTorch."""
    weights = {name: torch.from_numpy(value) for name, value in tiny.parameters(4, 0).items()}
    made = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=tiny.EPSILON), nn.ReLU()).eval()
    names = dict(
        zip(("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"), weights, strict=True)
    )
    made.load_state_dict({key: weights[name] for key, name in names.items()}, strict=False)
    return made


def refusal(error: type[bnfold.BnfoldError], *arguments: Any) -> str:
    with pytest.raises(error) as caught:
        verify(*arguments)
    return str(caught.value)


def test_a_module_in_training_mode_is_refused() -> None:
    for pair, which in (((conv_bn().train(), conv_bn()), "before"), ((conv_bn(), conv_bn().train()), "after")):
        assert refusal(UsageError, *pair, X) == (
            f"error[USAGE]: the model {which} is in training mode, where a BatchNorm follows its batch\n"
            "Call model.eval() first."
        )


def test_a_module_of_which_nobody_says_what_it_takes_is_refused() -> None:
    assert refusal(UsageError, conv_bn(), conv_bn()).startswith(
        "error[USAGE]: the network does not say what its input looks like\n"
    )


def test_inputs_that_do_not_fit_are_refused_in_words() -> None:
    said = refusal(UsageError, conv_bn(), conv_bn(), torch.randn(1, 5, 6, 6))
    assert said.startswith("error[USAGE]: the model before does not run on input 1×5×6×6 float32: ")
    assert "Traceback" not in said
    program = exported(conv_bn(), X)
    assert "and --input" not in refusal(UsageError, program, program, (X, X))


def test_what_cannot_be_compared_is_refused_in_words() -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return {"y": x, "name": "strange"}

    assert refusal(UnsupportedError, Strange().eval(), Strange().eval(), X) == (
        "error[UNSUPPORTED]: the model before returns an object of type str, which cannot be compared\n"
        "Return tensors, or tuples, lists and dicts of them."
    )
    with quiet():
        program = torch.export.export(Power().eval(), (X, 2), dynamic_shapes=({}, torch.export.Dim.DYNAMIC))
    assert "takes a number that varies" in refusal(UnsupportedError, program, program)


class Power(nn.Module):
    def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
        return x * n


def test_files_that_would_have_to_be_trusted_are_refused(tmp_path: Path) -> None:
    program = exported(conv_bn(), X)
    torch.export.save(program, tmp_path / "m.pt2")
    assert refusal(UnsafeError, tmp_path / "m.pt2", program).endswith(
        "Load it yourself and pass the network, or use the command line."
    )
    torch.save(conv_bn().state_dict(), tmp_path / "m.pt")
    assert refusal(UnsupportedError, program, tmp_path / "m.pt").startswith(
        f"error[UNSUPPORTED]: {tmp_path / 'm.pt'} holds weights only, and not the network they belong to\n"
    )
    torch.save(conv_bn(), tmp_path / "module.pt")
    assert verify(program, tmp_path / "module.pt").passed


def test_nothing_is_changed() -> None:
    module, program = conv_bn(), exported(conv_bn(), X)
    state = copy.deepcopy(module.state_dict())
    verify(module, program, X)
    assert module.training is False
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name])
    assert np.array_equal(X.numpy(), X.numpy())
    assert networks.conv_bn()[0].weight.requires_grad
