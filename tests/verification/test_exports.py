"""PyTorch networks are proved as torch exports them; a run that differs overrules it."""

from __future__ import annotations

import copy
import sys
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from hostile_more import CASES
from networks import Counting, TwoHeads, conv_bn, damaged, exported
from test_fold_modules import prepared
from torch import nn

import bnfold
from bnfold import verify
from bnfold.quiet import quiet
from bnfold.verification import exports
from bnfold.verification.verify import NOT_SEEN, UNEXPLAINED

X = torch.randn(2, 3, 6, 6)


def trained(name: str) -> nn.Module:
    """A network of models/ with its weights."""
    sys.path.insert(0, "models")
    import architectures

    module: nn.Module = getattr(architectures, name)()
    module.load_state_dict(torch.load(f"models/{name}.pt", weights_only=True))
    return module.eval()


def test_a_network_is_itself() -> None:
    module = conv_bn()
    verdict = verify(module, copy.deepcopy(module), X)
    assert (verdict.passed, verdict.proved, verdict.exported, verdict.level) == (True, True, True, "full")
    assert verdict.notes == (
        "the proof is of the graphs that torch exports for the call input ?×3×6×6: it trusts the exporter, "
        "and holds where forward takes the path of that call",
    )
    assert verdict.extent == "proved for all inputs as torch exports them"
    assert verdict.to_dict()["exported"] is True


@pytest.mark.parametrize("name", ["mlp", "resnet", "preact_resnet", "iresnet", "repvgg", "densenet", "unet", "tcn"])
def test_folds_of_trained_networks_are_proved(name: str) -> None:
    module = trained(name)
    x: Any = module.example_input_array
    folded = bnfold.fold(module, x).model
    assert verify(module, folded, x).proved
    wrong = copy.deepcopy(folded)
    with torch.no_grad():
        weight = next(wrong.parameters()).view(-1)
        weight[weight.abs().argmax()] *= 1.001
    verdict = verify(module, wrong, x)
    assert not verdict.proved
    assert any("at '" in sentence and "channel" in sentence for sentence in (*verdict.failures, *verdict.notes))


HOSTILE = (
    "bn_before_lstm",
    "control_flow",
    "conv3d_bn",
    "data_parallel",
    "compiled",
    "functional_batch_norm",
    "hook_on_a_block",
    "keyword_and_nested_inputs",
    "mixed_types",
    "bfloat16",
    "mobileone_block",
    "old_weight_norm",
    "tied_weights",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_folds_of_hostile_modules_are_proved(name: str) -> None:
    module, inputs = prepared(CASES[name])
    verdict = verify(module, bnfold.fold(module, inputs).model, copy.deepcopy(inputs))
    assert verdict.passed
    assert verdict.proved, verdict.notes


@pytest.mark.parametrize("name", ["frozen_batch_norm", "forward_reads_the_momentum"])
def test_a_right_fold_that_the_certificate_refutes_still_passes(name: str) -> None:
    """Arithmetic on weights in forward is rounded otherwise after the fold: no weight that is wrong."""
    module, inputs = prepared(CASES[name])
    verdict = verify(module, bnfold.fold(module, inputs).model, inputs)
    assert (verdict.passed, verdict.proved) == (True, False)
    assert verdict.certificate is not None
    assert verdict.certificate.refuted
    assert verdict.notes[0].startswith("not proved: at '")
    assert verdict.notes[0].endswith(NOT_SEEN)


def test_pairs_of_different_kinds_are_proved() -> None:
    module = conv_bn()
    program = exported(module, X)
    with quiet():
        made = torch.onnx.export(
            program, (), dynamo=True, optimize=False, verbose=False, input_names=["image"], output_names=["scores"]
        )
    assert made is not None
    model = bnfold.fold(made.model_proto).model
    graph = bnfold.fold(module, X, prefer="graph").model
    for before, after in ((module, model), (model, module), (program, graph), (graph, program), (program, model)):
        verdict = verify(before, after, X)
        assert (verdict.passed, verdict.proved, verdict.exported) == (True, True, True)
    assert not verify(damaged(module, 1e-4), model, X).proved
    assert not verify(model, damaged(module, 1e-4), X).proved


class Inputs(nn.Module):
    """x − 2·y, or the other way round."""

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.turned = turned
        self.eval()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        difference = y - 2 * x if self.turned else x - 2 * y
        return difference, x * y


def test_inputs_and_outputs_go_together_as_they_do_when_they_run() -> None:
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    assert verify(Inputs(), Inputs(), (a, b)).proved
    assert not verify(Inputs(), Inputs(turned=True), (a, b)).proved
    assert not verify(Inputs(), Inputs(turned=True), (a, a)).proved  # where no run tells
    sub = onnx.helper.make_node("Sub", ["a", "twice"], ["d"])
    double = onnx.helper.make_node("Add", ["b", "b"], ["twice"])
    product = onnx.helper.make_node("Mul", ["a", "b"], ["p"])
    a_, b_, d, p = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", 3)) for name in "abdp")
    graph = onnx.helper.make_graph([double, sub, product], "g", [a_, b_], [d, p])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    assert verify(Inputs(), model, (a, b)).passed
    assert not verify(Inputs(turned=True), model, (a, a)).proved


def test_nested_arguments_and_results_are_proved() -> None:
    xs = [torch.randn(3, 4), torch.randn(3, 4)]
    assert verify(TwoHeads(), copy.deepcopy(TwoHeads()), {"xs": xs, "flip": True}).proved


def test_the_batch_stays_fixed_on_both_sides_where_one_fixes_it() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = conv_bn()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.reshape(2, 3, 6, 6))

    verdict = verify(Fixed().eval(), Fixed().eval(), X)
    assert verdict.proved
    assert "for the call x 2×3×6×6:" in verdict.notes[0]
    assert verify(Fixed().eval(), conv_bn(), X).passed


def reason(module: nn.Module, x: torch.Tensor = X) -> str:
    """Why a network is not proved to be itself."""
    verdict = verify(module, copy.deepcopy(module), x)
    assert verdict.passed
    assert not verdict.proved
    assert verdict.level == "quick"
    return verdict.notes[0].removeprefix("not proved, only compared by running: ")


class Function(nn.Module):
    """A function as a network."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)  # type: ignore[no-any-return]


def test_why_networks_are_not_proved() -> None:
    module = conv_bn()
    module[1].train()
    assert reason(module) == (
        "the model before changes '1.running_mean', '1.running_var', '1.num_batches_tracked' when it is called, "
        "and a proof is of what it returns"
    )
    branching = Function(lambda x: x if x.sum() > 0 else -x)
    assert reason(branching).startswith(f"torch {torch.__version__} cannot export the model before: ")
    written = Function(lambda x: x.mul_(2) + 1)
    assert reason(written) == (
        "the model before changes its inputs when it is called, and a proof is of what it returns"
    )
    assert reason(Counting(), torch.ones(3)) == "the model before draws random numbers ('rand')"
    dropped = Function(lambda x: F.dropout(x, 0.5, training=True))
    assert reason(dropped) == "the model before draws random numbers ('dropout')"
    unwritten = Function(lambda x: x + torch.empty(6).fill_(1))
    assert reason(unwritten) == "the model before draws random numbers ('empty')"
    assert verify(Function(F.dropout).eval(), Function(F.dropout).eval(), X).proved is False
    assert verify(nn.Dropout().eval(), nn.Dropout().eval(), X).proved


def test_a_large_network_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "LARGE_BYTES", 100)
    assert reason(conv_bn()) == (
        "the model before has 0.0 GB of weights, and networks of PyTorch are exported for a proof up to 0.0 GB"
    )


def test_a_run_that_differs_is_not_excused_by_a_proof() -> None:
    """A network that does something else while it is exported."""
    honest, other = Function(lambda x: x), Function(lambda x: x if torch.compiler.is_exporting() else 2 * x)
    verdict = verify(honest.eval(), other.eval(), X)
    assert (verdict.passed, verdict.proved, verdict.level) == (False, False, "quick")
    assert verdict.notes[0] == UNEXPLAINED


def test_a_hook_is_part_of_the_network() -> None:
    module, hooked = conv_bn(), conv_bn()
    hooked.register_forward_hook(lambda _, __, y: y.clamp(max=1e6))
    verdict = verify(module, hooked, X)  # which no drawn input tells
    assert (verdict.passed, verdict.proved) == (True, False)


def test_the_quick_level_exports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "as_onnx", None)
    monkeypatch.setattr(torch.export, "export", None)
    assert verify(conv_bn(), conv_bn(), X, level="quick").passed


def test_the_network_is_left_as_it_was() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = conv_bn(), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = x
            return self.inner(x)

    module = Remembering().eval()
    module.inner.register_forward_hook(lambda *_: None)
    state, weights = copy.deepcopy(module.state_dict()), [p.data_ptr() for p in module.parameters()]
    rng, given = torch.get_rng_state(), X.clone()
    assert verify(module, copy.deepcopy(module), given).proved
    assert type(module.last) is torch.Tensor
    assert [p.data_ptr() for p in module.parameters()] == weights
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not any(layer.training for layer in module.modules())
    assert len(module.inner._forward_hooks) == 1
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(given, X)
    assert not hasattr(given, "_dynamo_dynamic_indices")
