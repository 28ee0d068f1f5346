"""What somebody does who calls bnfold from Python for the first time: it works, or the answer says what to do."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from torch import nn

import bnfold

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of torch.export, about itself
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Net(nn.Module):
    """Conv → BN on three channels."""

    def __init__(self, out: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, out, 3)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


X = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("given", "what", "hint"),
    [
        (X.numpy(), "example_inputs is a numpy array", "Pass torch.from_numpy(x), with x the array."),
        ((X.numpy(),), "example_inputs[0] is a numpy array", "Pass torch.from_numpy(x), with x the array."),
        ({"x": X.numpy()}, "example_inputs['x'] is a numpy array", "Pass torch.from_numpy(x), with x the array."),
        (
            torch.zeros(2, 1, 8, 8),
            "Net does not take x 2x1x8x8 float32: RuntimeError: Given groups=1, weight of size [4, 3, 3, 3], expected "
            "input[2, 1, 8, 8] to have 3 channels, but got 1 channels instead",
            "Pass inputs of the shape and dtype the network was trained with.",
        ),
        (
            {"image": X},
            "Net does not take image 2x3x8x8 float32: TypeError: Net.forward() got an unexpected keyword argument "
            "'image'",
            "Pass inputs of the shape and dtype the network was trained with.",
        ),
        (
            (2, 3, 32, 32),
            "Net does not take 2, 3, 32, 32: TypeError: Net.forward() takes 2 positional arguments but 5 were given",
            "These are the sizes of a tensor: pass the tensor, e.g. torch.randn(2, 3, 32, 32).",
        ),
        (
            torch.Size((2, 3, 32, 32)),
            "Net does not take 2, 3, 32, 32: TypeError: Net.forward() takes 2 positional arguments but 5 were given",
            "These are the sizes of a tensor: pass the tensor, e.g. torch.randn(2, 3, 32, 32).",
        ),
    ],
)
def test_inputs_a_network_does_not_take(net: Net, given: Any, what: str, hint: str) -> None:
    with pytest.raises(bnfold.UsageError) as caught:
        bnfold.fold(net, given)
    assert (caught.value.what, caught.value.hint) == (what, hint)


def test_what_torch_cannot_export_is_no_mistake_of_the_caller(net: Net) -> None:
    class Branches(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(bnfold.UnsupportedError, match=r"torch\.export cannot capture Branches"):
        bnfold.fold(Branches().eval(), X)


def test_a_network_that_fails_notes_nothing(net: Net) -> None:
    class Counts(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x)

    counts = Counts().eval()
    with pytest.raises(bnfold.UsageError):
        bnfold.fold(counts, torch.zeros(2, 1, 8, 8))
    assert counts.calls == 0


@pytest.mark.parametrize(
    ("model", "what", "hint"),
    [
        (
            "sd.pt",
            "bnfold.fold takes a model in memory, not a path: 'sd.pt'",
            "Use bnfold.convert(path, output); where the file holds weights only, with arch=.",
        ),
        (
            OrderedDict(weight=torch.zeros(2)),
            "bnfold.fold takes a network, not a state dict, which holds weights only",
            "Call model.load_state_dict(state) and pass model.eval(), or use bnfold.convert(path, output, arch=...).",
        ),
    ],
)
def test_what_belongs_to_convert(model: object, what: str, hint: str) -> None:
    with pytest.raises(bnfold.UsageError) as caught:
        bnfold.fold(model)
    assert (caught.value.what, caught.value.hint) == (what, hint)


@pytest.mark.parametrize("arguments", [(Net(), "z.onnx"), ("model.onnx", Net())], ids=["model", "output"])
def test_what_belongs_to_fold(arguments: tuple[Any, Any]) -> None:
    with pytest.raises(bnfold.UsageError) as caught:
        bnfold.convert(*arguments)
    assert caught.value.what == "bnfold.convert takes a path, not a Net"
    assert caught.value.hint == ("Fold a network or model that is in memory with bnfold.fold(model, example_inputs).")


@pytest.mark.parametrize("factory", [Net, lambda: Net(), Net()], ids=["class", "function", "network"])
def test_the_code_of_a_network_as_an_object(net: Net, factory: Any, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "sd.pt")
    weight = factory.conv.weight.clone() if isinstance(factory, Net) else None
    report = bnfold.convert(tmp_path / "sd.pt", tmp_path / "z.onnx", arch=factory, inputs=["2x3x8x8"])
    assert report.passed
    assert report.plan is not None
    assert report.plan.kept == 0
    assert bnfold.verify(net, tmp_path / "z.onnx", X)
    assert weight is None or torch.equal(factory.conv.weight, weight)


def test_arguments_of_a_class(tmp_path: Path) -> None:
    torch.save(Net(6).state_dict(), tmp_path / "sd.pt")
    with pytest.raises(bnfold.InputError, match=r"and 4x3x3x3 in Net\n") as caught:
        bnfold.convert(tmp_path / "sd.pt", tmp_path / "z.onnx", arch=Net, inputs=["2x3x8x8"])
    assert caught.value.hint == "Pass the arch and arch_args this checkpoint was trained with."
    assert bnfold.convert(
        tmp_path / "sd.pt", tmp_path / "z.onnx", arch=Net, arch_args={"out": "6"}, inputs=["2x3x8x8"]
    ).passed
    with pytest.raises(bnfold.UsageError, match="arch int is an object of type int, not a factory"):
        bnfold.convert(tmp_path / "sd.pt", tmp_path / "y.onnx", arch=3)  # type: ignore[arg-type]


def test_what_fold_gave_is_taken_as_it_is(net: Net) -> None:
    folded = bnfold.fold(net, X)
    assert bnfold.verify(net, folded, X)
    assert bnfold.bench(net, folded, X, min_time=0.01, threads=1).rows
    rows = [(np.zeros((2, 3, 6, 6), np.float32), np.zeros(2, np.int64))]
    model = tiny.conv_bn()

    def score(output: Any, y: Any) -> Any:
        return np.asarray(output).reshape(len(y), -1)[:, 0]

    assert bnfold.accuracy(model, bnfold.fold(model), rows, score).n == 2
    assert torch.equal(folded(X), folded.model(X))
    with pytest.raises(bnfold.UsageError, match="a ModelProto cannot be called"):
        bnfold.fold(tiny.conv_bn())(X)


def test_a_batchnorm_left_in_training_mode_is_told(net: Net) -> None:
    net.bn.train()
    plan = bnfold.fold(net, X).plan
    assert plan.sites[0].reason is bnfold.Reason.TRAINING
    assert plan.notes[-1] == (
        "'bn' is in training mode, though the network is not: the statistics are those of the batch; where that is "
        "not meant, call model.eval() and fold again"
    )


def test_printed_results_are_what_a_user_wants_to_read(net: Net, tmp_path: Path) -> None:
    folded = bnfold.fold(net, X)
    assert str(folded.plan) == "1 BatchNorm → 0 (1 folded)"
    assert str(folded) == "Net: 1 BatchNorm → 0 (1 folded)"
    assert repr(folded.plan).startswith("Plan(sites=(")
    kept = bnfold.fold(net, X, exclude="bn")
    assert str(kept.plan) == "1 BatchNorm → 1\n1 kept, EXCLUDED: it was excluded by the caller: 'bn'"
    verdict = str(bnfold.verify(net, folded, X))
    assert verdict.startswith(
        "The same function: proved for all inputs as torch exports them; run on 1 input as well, largest difference "
    )
    other = str(bnfold.verify(net, Net().eval(), X))
    assert other.splitlines()[0].startswith("Not the same function: run on 1 input, not proved, largest difference ")
    assert "output" in other.splitlines()[1]
    timing = str(bnfold.bench(net, folded, X, min_time=0.01, threads=1))
    assert timing.startswith("torch, batch 2: ")
    onnx.save(tiny.conv_bn(), tmp_path / "model.onnx")
    lines = str(bnfold.convert(tmp_path / "model.onnx", tmp_path / "out.onnx")).splitlines()
    assert lines[0] == "1 BatchNorm → 0 (1 folded)"
    assert lines[1].startswith("The same function: proved for all inputs; run on 4 inputs as well, ")
    assert lines[-1] == f"Written to {tmp_path / 'out.onnx'}"
    assert len(lines) == 3


def test_a_name_does_nothing_to_the_terminal_it_is_printed_on() -> None:
    site = bnfold.Site("bn\x1b[31m\n", "BatchNormalization", "kept", (), bnfold.Reason.IO)
    assert str(bnfold.Plan((site,))).count("\n") == 1
    assert "\x1b" not in str(bnfold.Plan((site,), notes=("a\x1bb",)))
