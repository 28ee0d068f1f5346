"""PyTorch as a runtime: what it computes, and that it leaves threads and state as they were."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from networks import Counting, conv_bn, exported
from torch import nn

import bnfold
from bnfold import bench
from bnfold.errors import UnsupportedError, UsageError
from bnfold.running.networks import of_module, of_program
from bnfold.running.subjects import open_subjects
from bnfold.running.torchrunner import TorchRunner, torch_threads
from bnfold.tracing.examples import example_of

X = torch.randn(2, 3, 6, 6)
QUICK: dict[str, Any] = {"min_time": 0.05, "threads": 1}


def test_it_computes_what_the_network_does() -> None:
    module = conv_bn()
    runner = TorchRunner(of_module(module, example_of(module, X)))
    assert runner.name == "torch"
    assert runner.input_names == ("input",)
    got = runner.run({"input": X.numpy()})
    np.testing.assert_allclose(got["output"], module(X).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_program_declares_what_it_takes_and_returns() -> None:
    runner = TorchRunner(of_program(exported(conv_bn(), X), "the model"))
    assert runner.inputs == {"input": ("tensor(float)", (None, 3, 6, 6))}
    assert runner.outputs == {"output": ("tensor(float)", (None, 4, 4, 4))}


def test_each_run_begins_alike_and_leaves_no_trace() -> None:
    module = Counting()
    runner = TorchRunner(of_module(module, example_of(module, torch.ones(3))))
    x = np.ones(3, np.float32)
    x.flags.writeable = False
    first, second = runner.run({"x": x}), runner.run({"x": x})
    assert np.array_equal(first["output"], second["output"])
    assert module.calls == 0


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(KeyError), torch_threads(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_networks_are_timed_and_left_as_they_were() -> None:
    module, threads = Counting(), torch.get_num_threads()
    seen: set[int] = set()
    module.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    timing = bench(module, copy.deepcopy(module), torch.ones(5), min_time=0.05, threads=threads + 1)
    [row] = timing.rows
    assert (row.runtime, row.threads, timing.batch) == ("torch", threads + 1, 5)
    assert row.speedup is not None
    assert seen == {threads + 1}
    assert torch.get_num_threads() == threads
    assert module.calls == 0


def test_programs_are_timed_as_they_stand_and_compiled() -> None:
    program = exported(nn.ReLU().eval(), torch.ones(4), dynamic=False)  # small: a C++ compiler runs
    rows = bench(program, program, runtimes=["torch", "torch-compile"], **QUICK).rows
    assert [row.runtime for row in rows] == ["torch", "torch-compile"]
    assert bench(program, **QUICK).rows[0].speedup is None
    runner = TorchRunner(of_program(program, "the model"), compiled=True)
    assert runner.name == "torch-compile"
    assert runner.run({"input": np.array([-1, 2, 3, -4], np.float32)})["output"].tolist() == [0, 2, 3, 0]


@pytest.mark.parametrize("make", [lambda: exported(conv_bn(), X), conv_bn], ids=["program", "module"])
def test_the_control_has_weights_of_its_own(make: Any) -> None:
    with ExitStack() as stack:
        [subject] = open_subjects((make(),), stack, X, (), 0)
        first, second = subject.network.module, subject.again().network.module
    mine, others = ({tensor.data_ptr() for tensor in module.parameters()} for module in (first, second))
    assert mine
    assert not mine & others


def test_a_slower_network_is_found_slower() -> None:
    class Work(nn.Module):
        def __init__(self, repeats: int) -> None:
            super().__init__()
            self.repeats = repeats

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.repeats):
                x = x.sin()
            return x

    [row] = bench(Work(60).eval(), Work(6).eval(), torch.ones(20000), min_time=0.2, threads=1).rows
    assert row.low > 2


def refusal(error: type[bnfold.BnfoldError], *arguments: Any, **more: Any) -> str:
    with pytest.raises(error) as caught:
        bench(*arguments, **more)
    return str(caught.value)


def test_a_runtime_of_the_other_kind_is_refused() -> None:
    assert refusal(UsageError, exported(conv_bn(), X), runtimes=["ort"]) == (
        "error[USAGE]: runtime 'ort' runs an ONNX model, and this is a PyTorch network\n"
        "Use one of: torch, torch-compile."
    )
    assert refusal(UsageError, tiny.conv_bn(), runtimes=["torch-compile"]) == (
        "error[USAGE]: runtime 'torch-compile' runs a PyTorch network, and this is an ONNX model\n"
        "Use one of: ort, ort-as-written, openvino."
    )


def test_an_onnx_model_and_a_network_have_no_runtime_in_common() -> None:
    assert refusal(UsageError, tiny.conv_bn(), exported(conv_bn(), X)).startswith(
        "error[USAGE]: the model before is ONNX and the model after PyTorch: no runtime runs both\n"
    )


def test_networks_of_other_inputs_are_not_compared() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    assert refusal(UsageError, exported(Sum(), X, X), exported(conv_bn(), X)).startswith(
        "error[USAGE]: the inputs are ['x', 'y'] before and ['input'] after\n"
    )


def test_a_network_that_does_not_compile_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda module: torch._dynamo.optimize(broken)(module))
    said = refusal(UnsupportedError, conv_bn(), inputs=X, runtimes=["torch-compile"], **QUICK)
    assert said.startswith("error[UNSUPPORTED]: torch.compile does not compile the model before: ")
    assert said.endswith('Leave out runtimes=["torch-compile"]; it needs a C++ compiler.')
