"""What is verified and timed: an ONNX model or a PyTorch network, whatever form it came in.

    path of an ONNX file, ModelProto, onnx_ir.Model        onnx     ort, ort-as-written, openvino
    Module, ExportedProgram                                torch    torch, torch-compile

A module does not say what it takes: its inputs are those given, or what it says about itself, or what the model it is
compared with declares.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnfold.data.feeds import InputDecl, make_feeds, model_inputs
from bnfold.errors import UnsafeError, UnsupportedError, UsageError
from bnfold.loading.onnxfile import stored_bytes
from bnfold.planning.folded import Folded
from bnfold.quiet import quiet
from bnfold.running.openvinorunner import OpenVinoRunner
from bnfold.running.runners import (
    ONNX_RUNTIMES,
    OPENVINO,
    TORCH_RUNTIMES,
    Runner,
    as_ir,
    make_runner,
    named_inputs,
    runnable,
)
from bnfold.specs import InputSpec

if TYPE_CHECKING:
    import onnx_ir

    from bnfold.running.networks import Network
    from bnfold.running.torchrunner import TorchRunner


@dataclass(frozen=True)
class OnnxSubject:
    """An ONNX model.

    Attributes:
        file: Its path or its bytes.
        model: The same, read.
        label: What messages call it.
        device: Where its runners put it: `"cpu"` or `"cuda"`.
    """

    file: str | bytes
    model: onnx_ir.Model
    label: str = "the model"
    device: str = "cpu"

    kind = "ONNX"
    runtimes = ONNX_RUNTIMES
    as_written = "ort-as-written"

    @property
    def declared(self) -> tuple[InputDecl, ...]:
        """The inputs that have to be fed."""
        return model_inputs(self.model)

    def runner(self, runtime: str, *, threads: int | None = None) -> Runner:
        """The model in one of its runtimes."""
        if runtime == OPENVINO:
            return OpenVinoRunner(self.file, threads=threads, label=self.label)
        return make_runner(runtime, self.file, threads=threads, label=self.label, device=self.device)

    @property
    def bytes(self) -> int | None:
        """The size of its file, with its external data."""
        import onnx_ir

        return len(self.file) if isinstance(self.file, bytes) else stored_bytes(onnx_ir.load(self.file), self.file)

    def on(self, device: str) -> OnnxSubject:
        """The same model for runners on a device."""
        return replace(self, device=device)

    def again(self) -> OnnxSubject:
        """The same model; each runner loads it anew."""
        return self


@dataclass(frozen=True)
class TorchSubject:
    """A PyTorch network.

    Attributes:
        network: The network and its inputs.
        label: What messages call it.
    """

    network: Network
    label: str = "the model"

    kind = "PyTorch"
    runtimes = TORCH_RUNTIMES
    as_written = "torch"

    @property
    def device(self) -> str:
        """Where its tensors are; the CPU where it has none."""
        from bnfold.running.torchrunner import device_of

        return str(device_of(self.network.module))

    @property
    def bytes(self) -> int:
        """The size of its weights."""
        from bnfold.data.tensors import weight_bytes

        return weight_bytes(self.network.module)

    def on(self, device: str) -> TorchSubject:
        """The same network on a device: as it is where it is there, else a copy.

        Raises:
            UnsupportedError: It cannot be copied there.
        """
        if self.device.partition(":")[0] == device.partition(":")[0]:
            return self
        from bnfold.running.torchrunner import moved

        return replace(self, network=replace(self.network, module=moved(self.network.module, device, self.label)))

    @property
    def declared(self) -> tuple[InputDecl, ...]:
        """The tensors it takes."""
        return self.network.declared

    def runner(self, runtime: str, *, threads: int | None = None) -> TorchRunner:
        """The network in one of its runtimes; torch has one number of threads for all, which `torch_threads` sets."""
        from bnfold.running.torchrunner import TorchRunner

        return TorchRunner(self.network, compiled=runtime == "torch-compile", label=self.label)

    def again(self) -> TorchSubject:
        """A copy with weights of its own; the same network where it cannot be copied."""
        try:
            with quiet():
                return replace(self, network=replace(self.network, module=copy.deepcopy(self.network.module)))
        except Exception:  # what copying somebody's class raises is not known
            return self


Subject = OnnxSubject | TorchSubject


def open_subjects(
    models: Sequence[object], stack: ExitStack, inputs: Any, specs: Sequence[InputSpec], seed: int
) -> tuple[Subject, ...]:
    """One or two models as something to run; modules last, because they may have to ask the other one.

    Args:
        models: The model before, and perhaps the one after; what was opened already is taken as it is.
        stack: Closes what is opened.
        inputs: What the caller passed to run them on, or None.
        specs: Shapes the caller gave.
        seed: Of drawn inputs.

    Raises:
        UsageError: A module is in training mode, or nothing says what it takes.
        UnsupportedError: Something is no model, or cannot be run here.
    """
    labels = ("the model before", "the model after")
    opened: dict[int, Subject] = {}
    read = [_read(model) for model in models]
    for index, (model, label) in enumerate(zip(read, labels, strict=False)):
        if not _is_module(model):
            opened[index] = _open(model, label, stack)
    for index, (model, label) in enumerate(zip(read, labels, strict=False)):
        if _is_module(model):
            other = opened.get(1 - index)
            opened[index] = _open_module(model, label, other, inputs, specs, seed)
    return tuple(opened[index] for index in sorted(opened))


def given_feeds(subject: Subject, inputs: Any) -> dict[str, NDArray[Any]]:
    """The arrays a caller passed, by the names of a model's inputs.

    Raises:
        UsageError: They are not as many as the inputs.
    """
    names = [decl.name for decl in subject.declared]
    if isinstance(inputs, Mapping) and set(map(str, inputs)) >= set(names):
        return named_inputs({str(key): _array(value) for key, value in inputs.items()}, names)
    if isinstance(subject, TorchSubject):
        import torch
        from torch.utils import _pytree as pytree

        leaves = pytree.tree_leaves(dict(inputs) if isinstance(inputs, Mapping) else inputs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, (torch.Tensor, np.ndarray))]
        return named_inputs([_array(leaf) for leaf in tensors] if tensors else inputs, names)
    if isinstance(inputs, Mapping):
        return named_inputs({str(key): _array(value) for key, value in inputs.items()}, names)
    arrays = [_array(value) for value in inputs] if isinstance(inputs, (list, tuple)) else _array(inputs)
    return named_inputs(arrays, names)


@dataclass(frozen=True)
class _File:
    """An ONNX file that was read, and is run from where it lies."""

    path: str
    model: Any


def _read(model: object) -> object:
    """What a path holds, and the model of what `fold` gave; anything else as it is."""
    if isinstance(model, Folded):
        return model.model
    if not isinstance(model, (str, os.PathLike)):
        return model
    from bnfold.loading.load import load

    advice = "Load it yourself and pass the network, or use the command line."
    try:
        loaded = load(model)
    except UsageError as error:  # weights without their network, for which there is no --arch here
        raise UnsupportedError(f"{model} holds weights only, and not the network they belong to", advice) from error
    except UnsafeError as error:
        raise UnsafeError(error.what, advice) from error
    return _File(os.path.abspath(model), loaded.model) if loaded.format == "onnx" else loaded.model


def _is_module(model: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _open(model: object, label: str, stack: ExitStack) -> Subject:
    if isinstance(model, (OnnxSubject, TorchSubject)):
        return replace(model, label=label)
    if type(model).__module__.startswith("torch."):
        from torch.export import ExportedProgram

        from bnfold.running.networks import of_program

        if isinstance(model, ExportedProgram):
            return TorchSubject(of_program(model, label), label)
    if isinstance(model, _File):
        return OnnxSubject(model.path, model.model, label)
    return OnnxSubject(stack.enter_context(runnable(model)), as_ir(model), label)


def _open_module(
    module: Any, label: str, other: Subject | None, inputs: Any, specs: Sequence[InputSpec], seed: int
) -> TorchSubject:
    from bnfold.running.networks import of_module, refuse_training
    from bnfold.tracing.examples import example_like, example_of, make_example

    refuse_training(module, label)
    if other is not None and isinstance(other, OnnxSubject) and inputs is not None:
        example = example_like(module, given_feeds(other, inputs))
    elif inputs is not None:
        example = example_of(module, inputs)
    elif other is not None:
        example = example_like(module, make_feeds(other.declared, batch=1, seed=seed, specs=specs))
    else:
        example = make_example(module, specs, None, seed)
    return TorchSubject(of_module(module, example), label)


def _array(value: Any) -> Any:
    """A torch tensor as an array; anything else as it is."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    from bnfold.data.tensors import to_array

    return to_array(value)
