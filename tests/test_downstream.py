"""What people do with a folded network next works as it did before: in the class that came in, and as a graph."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import onnx_ir
import pytest
import torch
from hostile import CASES
from networks import conv_bn, drawn
from test_fold_modules import outputs, prepared
from torch import nn

import bnfold
from bnfold.quiet import quiet

X = torch.randn(2, 3, 6, 6)
GRAPHS = [name for name, case in CASES.items() if case.form == "graph"]


class Preactivation(nn.Module):
    """A stream with a BatchNorm before its ReLU, as no fuser takes away, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), drawn(nn.BatchNorm2d(4))
        self.conv, self.head = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Linear(4, 5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.conv(torch.relu(self.norm(x)))
        return self.head(x.mean((2, 3)))


MADE: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "class": lambda: (Preactivation(), bnfold.fold(Preactivation(), X).model),
    "graph": lambda: (Preactivation(), bnfold.fold(Preactivation(), X, prefer="graph").model),
}


@pytest.fixture(params=MADE)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """The network and its folded form."""
    before, after = MADE[request.param]()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in after.modules())
    return before, after


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a.float() - b.float()).abs().max() <= tolerance * b.float().abs().max())


def test_it_is_copied_pickled_and_saved(pair: tuple[nn.Module, nn.Module]) -> None:
    _, after = pair
    file = io.BytesIO()
    torch.save(after, file)
    file.seek(0)
    for again in (copy.deepcopy(after), pickle.loads(pickle.dumps(after)), torch.load(file, weights_only=False)):
        assert type(again) is type(after)
        assert torch.equal(again(X), after(X))
        assert list(again.state_dict()) == list(after.state_dict())
        assert not again.training


def test_a_pickle_holds_the_numbers_of_its_time(pair: tuple[nn.Module, nn.Module]) -> None:
    _, after = pair
    after.head.bias.requires_grad_(False)
    with torch.no_grad():
        after.head.bias += 1
    again = pickle.loads(pickle.dumps(copy.deepcopy(after).bfloat16()))
    assert close(again(X.bfloat16()), after(X), 0.05)
    frozen = {name for name, parameter in again.named_parameters() if not parameter.requires_grad}
    assert frozen == {"head.bias"}


@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_is_copied_and_pickled(name: str) -> None:
    module, inputs = prepared(CASES[name])
    after = bnfold.fold(module, inputs).model
    for again in (copy.deepcopy(after), pickle.loads(pickle.dumps(after))):
        for a, b in zip(outputs(after, inputs), outputs(again, inputs), strict=True):
            assert torch.equal(a, b)


def test_it_compiles(pair: tuple[nn.Module, nn.Module]) -> None:
    before, after = pair
    assert close(torch.compile(after, backend="aot_eager")(X), before(X))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's default backend needs a C++ compiler")
def test_it_compiles_with_the_default_backend() -> None:
    with quiet(), torch.no_grad():
        assert close(torch.compile(bnfold.fold(conv_bn(), X).model)(X), conv_bn()(X))


def test_it_is_exported_to_a_program_and_to_onnx(pair: tuple[nn.Module, nn.Module]) -> None:
    before, after = pair
    with quiet():
        program = torch.export.export(after, (X,))
        made = torch.onnx.export(after, (X,), dynamo=True, verbose=False)
    assert close(program.module()(X), before(X))
    assert bnfold.fold(program).plan.sites == ()
    assert made is not None
    assert bnfold.verify(before, made.model, X)
    assert not any(
        node.op_type == "BatchNormalization" for node in onnx_ir.traversal.RecursiveGraphIterator(made.model.graph)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_its_dtype_changes(pair: tuple[nn.Module, nn.Module], dtype: torch.dtype, tolerance: float) -> None:
    before, after = pair
    got = copy.deepcopy(after).to(dtype)(X.to(dtype))
    assert got.dtype == dtype
    assert close(got, before(X), tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_it_moves_to_a_gpu(pair: tuple[nn.Module, nn.Module]) -> None:
    before, after = pair
    assert close(copy.deepcopy(after).cuda()(X.cuda()).cpu(), before(X), 1e-3)


def test_gradients_flow_and_a_step_lowers_the_loss(pair: tuple[nn.Module, nn.Module]) -> None:
    _, after = pair
    after.train()
    optimiser = torch.optim.SGD(after.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = after(X).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in after.parameters())
        optimiser.step()
    assert losses[2] < losses[1] < losses[0]


def test_it_is_fake_quantised_as_the_original_is() -> None:
    """Torch's own quantisation has moved to torchao, and what is left of it in torch still works."""
    before, after = MADE["class"]()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        from torch.ao.quantization import get_default_qat_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_qat_fx

        prepared_: Any = prepare_qat_fx(after.train(), get_default_qat_qconfig_mapping("x86"), (X,))
        prepared_(X)
        got = prepared_.eval()(X)
    assert any("FakeQuantize" in type(layer).__name__ for layer in prepared_.modules())
    assert close(got, before(X), 0.1)
    got.square().mean().backward()
