"""CUDA without a GPU: a device made of a clock shows what is timed; what is refused is real."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from networks import conv_bn, exported
from torch import nn

from bnfold import bench
from bnfold.cli.app import main
from bnfold.errors import UnsupportedError, UsageError
from bnfold.running import cuda
from bnfold.running.runners import OrtRunner
from bnfold.running.torchrunner import device_of, moved

bench_module = importlib.import_module("bnfold.benchmark.bench")  # `bnfold.bench` itself is the function

X = torch.randn(2, 3, 6, 6)


class Device:
    """A GPU's queue: work is queued at once and done later; events are recorded when their turn comes."""

    def __init__(self) -> None:
        self.host = 0.0
        self.free_at = 0.0
        self.log: list[str] = []
        self.held = self.peak = 1000

    def launch(self, host: float, work: float) -> None:
        self.host += host
        self.free_at = max(self.free_at, self.host) + work
        self.log.append("call")
        self.peak = max(self.peak, self.held + 300)

    def forget(self) -> None:
        self.peak = self.held

    def synchronize(self) -> None:
        self.host = max(self.host, self.free_at)
        self.log.append("synchronize")

    def event(device, enable_timing: bool) -> Any:
        class Event:
            at: float | None = None

            def record(self) -> None:
                self.at = max(device.free_at, device.host)
                device.log.append("record")

            def synchronize(self) -> None:
                assert self.at is not None
                device.host = max(device.host, self.at)

            def elapsed_time(self, end: Event) -> float:
                assert enable_timing
                assert end.at is not None
                assert device.host >= end.at, "asked before the device was done"
                return 1e3 * (end.at - self.at)

        return Event()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: made.held)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: made.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", made.forget)
    return made


def test_the_work_is_timed_and_not_its_queueing(device: Device) -> None:
    assert cuda.event_seconds(lambda: device.launch(0.001, 0.5), 1) == pytest.approx(0.501)


def test_what_was_queued_before_is_not_counted(device: Device) -> None:
    device.launch(0.001, 100.0)
    assert cuda.event_seconds(lambda: device.launch(0.001, 0.5), 4) == pytest.approx(0.501)
    assert device.log[1:] == ["synchronize", "record", "call", "record"] * 4


def test_a_host_that_is_slower_than_the_device_counts(device: Device) -> None:
    def call() -> None:
        for _ in range(10):
            device.launch(0.01, 0.001)

    assert cuda.event_seconds(call, 2) == pytest.approx(0.101)


def test_memory_is_what_a_call_takes_beyond_what_is_held(device: Device) -> None:
    device.peak = 10**9  # of work that is long over
    assert cuda.peak_bytes(lambda: device.launch(0.001, 0.5)) == 300


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_networks_are_refused_without_a_device() -> None:
    with pytest.raises(UnsupportedError) as caught:
        bench(conv_bn(), inputs=X, device="cuda", min_time=0.05)
    assert str(caught.value) == (
        f"error[UNSUPPORTED]: PyTorch {torch.__version__} finds no CUDA device here\n"
        'Use device="cpu", or a build of PyTorch with CUDA on a machine with an NVIDIA GPU.'
    )


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="onnxruntime has CUDA")
def test_onnx_models_are_refused_without_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = (
        f"error[UNSUPPORTED]: onnxruntime {onnxruntime.__version__} was built without CUDA\n"
        'Use device="cpu", or pip install onnxruntime-gpu in place of onnxruntime.'
    )
    with pytest.raises(UnsupportedError) as caught:
        bench(tiny.conv_bn(), device="cuda", min_time=0.05)
    assert str(caught.value) == said
    onnx.save(tiny.conv_bn(), tmp_path / "m.onnx")
    for command in (["bench"], ["convert", "--bench", "-o", str(tmp_path / "out.onnx")]):
        assert main([*command, str(tmp_path / "m.onnx"), "--device", "cuda", "--no-progress"]) == 4
        assert capsys.readouterr().err == said.replace('device="cpu"', "--device cpu") + "\n"
    assert not (tmp_path / "out.onnx").exists()


def test_a_provider_that_does_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is built with CUDA and the machine has none: onnxruntime would go on without a word."""
    monkeypatch.setattr(
        "bnfold.running.runners.ORT_PROVIDERS", {"cuda": ("CUDAExecutionProvider", "CPUExecutionProvider")}
    )
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(UnsupportedError) as caught:
        OrtRunner(tiny.conv_bn().SerializeToString(), optimize=True, device="cuda", label="the model before")
    assert str(caught.value) == (
        f"error[UNSUPPORTED]: onnxruntime {onnxruntime.__version__} does not start CUDAExecutionProvider for the model "
        "before\nCheck that the GPU is visible and that CUDA and cuDNN are the versions onnxruntime-gpu asks for."
    )


def test_inputs_and_outputs_that_stay_on_a_device_compute_the_same() -> None:
    runner = OrtRunner(tiny.conv_bn().SerializeToString(), optimize=True)
    feeds = {"x": X.numpy()}
    [bound] = runner._bound(feeds, "cpu")()
    np.testing.assert_array_equal(bound.numpy(), runner.run(feeds)["y"])


def test_a_device_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as caught:
        bench(conv_bn(), inputs=X, device="cude")
    assert str(caught.value) == "error[USAGE]: no device is called 'cude'\nDid you mean cuda? There are: cpu, cuda."
    assert main(["bench", "absent.onnx", "--device", "vulkan"]) == 2
    assert capsys.readouterr().err == "error[USAGE]: no device is called 'vulkan'\nThere are: cpu, cuda.\n"


def test_a_model_on_a_device_that_is_not_timed_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        bench(conv_bn().to("meta"), inputs=X, min_time=0.05)
    assert str(caught.value) == (
        'error[UNSUPPORTED]: the model is on meta, and models are timed on cpu or cuda\nPass device="cpu", for example.'
    )


def test_a_network_is_copied_to_a_device_with_all_it_holds() -> None:
    module = conv_bn()
    there = moved(module, "meta")
    assert {tensor.device.type for tensor in (*there.parameters(), *there.buffers())} == {"meta"}
    assert device_of(module) == torch.device("cpu")
    assert there(X.to("meta")).shape == module(X).shape


def test_devices_inside_a_traced_graph_are_moved() -> None:
    class Position(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(x.shape[1], device=x.device).to("cpu")

    program = exported(Position().eval(), torch.randn(2, 5), dynamic=False)
    there = moved(program.module(), "meta")
    assert there(torch.randn(2, 5, device="meta")).device.type == "meta"


def test_a_network_that_cannot_be_copied_is_refused_in_words() -> None:
    class Single(nn.Module):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("there can be only one\nand more")

    with pytest.raises(UnsupportedError) as caught:
        moved(Single(), "meta", "the model before")
    assert str(caught.value) == (
        "error[UNSUPPORTED]: the model before cannot be copied to meta: RuntimeError: there can be only one\n"
        "Move it there yourself, model.to('meta'), and pass that."
    )


def test_networks_are_timed_on_the_device_by_its_events(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    """The whole of `bench` with CUDA's part played by the CPU: who is moved, and which clock is read."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: "a GPU")
    monkeypatch.setattr(torch.cuda, "device", lambda which: torch.no_grad())
    monkeypatch.setattr("bnfold.running.torchrunner.moved", lambda module, where, label: Costly(module, device, where))
    monkeypatch.setattr("bnfold.running.subjects.TorchSubject.device", property(lambda subject: where_of(subject)))
    monkeypatch.setattr(bench_module, "SPIN_UP_S", 0.01)
    before, after = conv_bn(), copy.deepcopy(conv_bn())
    after.cost = 0.25
    timing = bench(before, after, X, device="cuda", min_time=0.05, threads=1)
    [row] = timing.rows
    assert (row.device, timing.gpu, row.runtime) == ("cuda", "a GPU", "torch")
    assert (row.before_ms, row.after_ms) == (pytest.approx(501), pytest.approx(251))
    assert row.before is not None
    assert row.before.load_ms is None
    assert row.before.first_ms == pytest.approx(501)
    assert row.before.peak_bytes == 300 + sum(t.nbytes for t in (*before.parameters(), *before.buffers()))
    assert (row.speedup, row.verdict) == (pytest.approx(501 / 251), "2.00× faster")


class Costly(nn.Module):
    """A network that says it is on a device, whose work takes half a second there unless it says otherwise."""

    def __init__(self, module: nn.Module, device: Device, where: str) -> None:
        super().__init__()
        self.module, self.where = module, where
        self.device = [device]  # in a list, so that a copy has the same one
        self.cost = getattr(module, "cost", 0.5)

    def __deepcopy__(self, memo: Any) -> Costly:
        return Costly(copy.deepcopy(self.module, memo), self.device[0], self.where)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.device[0].launch(0.001, self.cost)
        return x


def where_of(subject: Any) -> str:
    return getattr(subject.network.module, "where", "cpu")
