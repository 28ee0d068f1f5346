"""PyTorch to ONNX with nothing folded: the graph as the network was trained.

torch.onnx.export folds Conv, ConvTranspose and Gemm with a BatchNormalization behind them unless `optimize=False`, and
then also leaves run-time arithmetic on constants in the graph (a bias made by Expand(CastLike(0, x))). So the export is
raw, and `fold_constants` tidies it up. The batch dimension stays open where the network allows it; it is traced at size
2, because torch may specialise a program to sizes 0 and 1, and a program traced at 2 also holds for the others.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir
import torch
from numpy.typing import NDArray

from bnfold.errors import UnsupportedError, UsageError
from bnfold.loading.load import Loaded
from bnfold.quiet import quiet
from bnfold.specs import DynamicDim, InputSpec
from bnfold.tracing.examples import Example, OpenDims, make_example, try_out
from bnfold.tracing.opening import innermost, traced

NAMED_AFTER_MODULES = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})
LOCAL_METADATA = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")  # paths and text of the exporting machine


@dataclass(frozen=True)
class Captured:
    """An ONNX model with the network's BatchNorms still in it.

    Attributes:
        model: The model.
        notes: What the reader should know, e.g. why the batch dimension is fixed.
    """

    model: onnx_ir.Model
    notes: tuple[str, ...] = ()


def capture(
    loaded: Loaded,
    *,
    inputs: Sequence[InputSpec] = (),
    data: Mapping[str, NDArray[Any]] | NDArray[Any] | None = None,
    dynamic: Sequence[DynamicDim] = (),
    opset: int | None = None,
    seed: int = 0,
) -> Captured:
    """The loaded model as ONNX; an ONNX model is returned as it is.

    Args:
        loaded: What `load` returned; its module is run, not changed.
        inputs: Shapes of the example inputs.
        data: Example inputs themselves: by name, or one array for the first input.
        dynamic: Dimensions to leave open besides the batch.
        opset: The ONNX opset to write; None takes torch's default.
        seed: Of the drawn example inputs.

    Raises:
        UsageError: No example input is known, or the network does not take the one given.
        UnsupportedError: torch cannot express the network in ONNX.
    """
    source = loaded.model
    if isinstance(source, onnx_ir.Model):
        return _as_it_is(source, loaded.path, dynamic, opset)
    if isinstance(source, torch.export.ExportedProgram):
        if dynamic:
            raise UsageError(
                f"--dynamic was given, and {loaded.path} was exported with its dimensions decided",
                "Choose them in torch.export.export(dynamic_shapes=...), or drop --dynamic.",
            )
        return Captured(finished(translated(source, loaded.path, opset), opset))
    if not isinstance(source, torch.nn.Module):
        raise UnsupportedError(f"{loaded.path} holds a {type(source).__name__}, not a network", "Pass a network.")
    example = make_example(source, inputs, data, seed)
    try_out(source, example)
    program, notes = _exported(source, example, dynamic, opset, loaded.path)
    return Captured(finished(program, opset), notes)


def translated(program: torch.export.ExportedProgram, label: str, opset: int | None = None) -> torch.onnx.ONNXProgram:
    """An exported program as torch puts it in ONNX, with nothing folded; not changed.

    Raises:
        UnsupportedError: torch cannot express it.
    """
    with quiet():
        try:
            made = torch.onnx.export(program, (), dynamo=True, optimize=False, verbose=False, opset_version=opset)
        except Exception as error:
            raise _not_expressible(label, error) from error
    assert made is not None
    return made


def _as_it_is(model: onnx_ir.Model, path: str, dynamic: Sequence[DynamicDim], opset: int | None) -> Captured:
    if dynamic:
        raise UsageError(
            f"--dynamic was given, and {path} is an ONNX file whose dimensions are decided",
            "Drop --dynamic, or convert the PyTorch model.",
        )
    has = model.opset_imports.get("")
    if opset is not None and opset != has:
        raise UnsupportedError(
            f"--opset {opset} was given, and {path} is an ONNX file of opset {has}",
            "Drop --opset, or convert the PyTorch model.",
        )
    return Captured(model)


def _exported(
    module: torch.nn.Module, example: Example, dynamic: Sequence[DynamicDim], opset: int | None, path: str
) -> tuple[torch.onnx.ONNXProgram, tuple[str, ...]]:
    return traced(
        example,
        dynamic,
        trace=lambda call, dims: _export(module, call, dims, opset),
        closed=lambda program, dims: _closed(program.model, example, dims),
        failed=lambda error: _not_expressible(path, error),
    )


def _export(module: torch.nn.Module, example: Example, dims: OpenDims, opset: int | None) -> torch.onnx.ONNXProgram:
    args, kwargs = example.call()
    shapes = example.map(lambda name, value: dims.get(name)) if dims else None
    with quiet():
        if isinstance(module, torch.jit.ScriptModule):
            module = converted(module, args)
            shapes = shapes and dict(zip(inspect.signature(module.forward).parameters, shapes.values(), strict=True))
        elif (
            args and not kwargs and isinstance(args[-1], dict)
        ):  # torch.onnx.export would take it for keyword arguments
            args, kwargs = (), dict(example.arguments)
        program = torch.onnx.export(
            module,
            args,
            kwargs=kwargs,
            input_names=list(example.tensors()),
            dynamic_shapes=shapes,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=opset,
        )
    assert program is not None
    return program


def converted(module: torch.jit.ScriptModule, args: tuple[Any, ...]) -> torch.nn.Module:
    """TorchScript as a module that torch.export takes; it refuses TorchScript itself."""
    from torch._export.converter import TS2EPConverter

    converted = TS2EPConverter(module, args).convert().module()
    converted.training = False  # it has no layers to switch, only the attribute torch.onnx looks at
    return converted


def _closed(model: onnx_ir.Model, example: Example, dims: OpenDims) -> str:
    """The dimensions that should be open and are not."""
    shapes = {value.name: value.shape for value in model.graph.inputs}
    return ", ".join(
        f"dimension {axis} of {name}"
        for name in example.tensors()
        for axis in dims.get(name, {})
        if (shape := shapes.get(name)) is not None and isinstance(shape[axis], int)
    )


def finished(program: torch.onnx.ONNXProgram, opset: int | None = None) -> onnx_ir.Model:
    """What torch made as a model to work on: constants folded, operators by the names of their modules.

    Raises:
        UnsupportedError: It is in another opset than the one asked for.
    """
    from bnfold.frontends.constants import fold_constants
    from bnfold.frontends.paths import noted_path

    model = program.model
    reached = model.opset_imports.get("")
    if opset is not None and reached != opset:
        raise UnsupportedError(
            f"torch {torch.__version__} cannot write this model in opset {opset}, only in {reached}",
            f"Pass --opset {reached}, or leave it out.",
        )
    fold_constants(model)
    nodes = list(onnx_ir.traversal.RecursiveGraphIterator(model.graph))
    taken = {node.name for node in nodes}
    for node in nodes:
        _drop_invented_bias(node)
        if node.op_type in NAMED_AFTER_MODULES and (path := noted_path(node)):
            node.name = next(name for name in numbered(".".join(path)) if name not in taken)
            taken.add(node.name)
        for key in LOCAL_METADATA:
            node.metadata_props.pop(key, None)
    return model


def _drop_invented_bias(node: onnx_ir.Node) -> None:
    """Takes the bias of zeros from a convolution that has none in PyTorch.

    The exporter makes one up; that of a Conv3d has the shape (channels, 2), which no runtime accepts.
    """
    if node.op_type != "Conv" or len(node.inputs) < 3:
        return
    bias = node.inputs[2]
    if bias is None or bias.const_value is None or bias.is_graph_input() or bias.const_value.numpy().any():
        return
    node.resize_inputs(2)
    if bias.name is not None and bias.graph is not None and not bias.uses():
        bias.graph.initializers.pop(bias.name, None)


def numbered(path: str) -> Iterator[str]:
    """`bn`, `bn#2`, `bn#3` and so on: a module that is called twice makes two operators."""
    yield path
    for count in itertools.count(2):
        yield f"{path}#{count}"


def _not_expressible(path: str, error: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"torch {torch.__version__} cannot express {path} in ONNX: {innermost(error)}",
        "Try torch.onnx.export(model, args, dynamo=True) on its own; its full report names the line.",
    )
