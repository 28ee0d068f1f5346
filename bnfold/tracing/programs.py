"""PyTorch to PyTorch: the exported program of what was loaded, with nothing folded, and what stands in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import fx
from torch.export import Dim, ExportedProgram

from bnfold.errors import UnsupportedError, UsageError
from bnfold.frontends.aten.nodes import BATCH_NORMS, opname
from bnfold.loading.load import Loaded
from bnfold.quiet import quiet
from bnfold.specs import DynamicDim, InputSpec
from bnfold.tracing.capture import converted
from bnfold.tracing.examples import Example, OpenDims, make_example, try_out
from bnfold.tracing.opening import innermost, traced


@dataclass(frozen=True)
class Exported:
    """What was loaded, as a program with its BatchNorms still in it.

    Attributes:
        program: The program.
        example: How the network was called; None where a program came in.
        notes: What the reader should know, e.g. why the batch dimension is fixed.
    """

    program: ExportedProgram
    example: Example | None = None
    notes: tuple[str, ...] = ()


def export_loaded(
    loaded: Loaded,
    *,
    inputs: Sequence[InputSpec] = (),
    data: Mapping[str, NDArray[Any]] | NDArray[Any] | None = None,
    dynamic: Sequence[DynamicDim] = (),
    seed: int = 0,
) -> Exported:
    """The loaded network as an exported program; a program is returned as it is.

    Args:
        loaded: What `load` returned; its module is run, not changed.
        inputs: Shapes of the example inputs.
        data: Example inputs themselves: by name, or one array for the first input.
        dynamic: Dimensions to leave open besides the batch.
        seed: Of the drawn example inputs.

    Raises:
        UsageError: No example input is known, or the network does not take the one given.
        UnsupportedError: It is an ONNX model, or torch cannot export it.
    """
    source = loaded.model
    if isinstance(source, ExportedProgram):
        if dynamic:
            raise UsageError(
                f"--dynamic was given, and {loaded.path} was exported with its dimensions decided",
                "Choose them in torch.export.export(dynamic_shapes=...), or drop --dynamic.",
            )
        return Exported(source)
    if not isinstance(source, torch.nn.Module):
        raise UnsupportedError(
            f"{loaded.path} is an {loaded.format.upper()} file, which cannot become a PyTorch network again",
            "Give the output the suffix .onnx, or convert the PyTorch model.",
        )
    example = make_example(source, inputs, data, seed)
    try_out(source, example)

    def failed(error: Exception) -> UnsupportedError:
        return UnsupportedError(
            f"torch {torch.__version__} cannot export {loaded.path}: {innermost(error)}",
            "Try torch.export.export(model, args) on its own; its full report names the line of forward.",
        )

    module = source
    program, notes = traced(
        example,
        dynamic,
        trace=lambda call, dims: export_call(module, call, dims),
        closed=lambda program, dims: "",  # torch.export refuses instead
        failed=failed,
    )
    return Exported(program, example, notes)


def export_again(module: torch.nn.Module, exported: Exported) -> ExportedProgram:
    """Another network of the same call, exported with the sizes of the example."""
    assert exported.example is not None
    return export_call(module, exported.example, {})


def export_call(module: torch.nn.Module, example: Example, dims: OpenDims) -> ExportedProgram:
    """One call of a network as a program.

    Args:
        module: The network.
        example: The call.
        dims: Dimensions to leave open.

    Raises:
        Exception: torch cannot export it; of whatever class.
    """
    args, kwargs = example.call()
    shapes: Any = None
    if dims:
        shapes = example.map(lambda name, value: dict.fromkeys(dims[name], Dim.DYNAMIC) if name in dims else None)
    with quiet(), torch.no_grad():
        if isinstance(module, torch.jit.ScriptModule):
            module = converted(module, args)
            shapes = shapes and tuple(shapes.values())
        return torch.export.export(module, args, kwargs or None, dynamic_shapes=shapes)


def program_nodes(program: ExportedProgram) -> Iterator[fx.Node]:
    """Every node of a program and of the bodies of its control flow."""
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            yield from part.graph.nodes


def count_nodes(program: ExportedProgram) -> dict[str, int]:
    """Operators by name in a program and in the bodies of its control flow, the most frequent first.

    BatchNorms are called what they are in ONNX, so that reports speak of one thing.
    """
    counts = Counter(filter(None, map(operator_name, program_nodes(program))))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def operator_name(node: fx.Node) -> str:
    """What a node is in a report; empty for what computes no tensor."""
    if node.op != "call_function":
        return ""
    name = opname(node)
    if name in BATCH_NORMS:
        return "BatchNormalization"
    if not name:
        target = getattr(node.target, "__name__", str(node.target))
        return "" if target == "getitem" or _is_size(node) else target
    return "" if _is_size(node) or name.startswith(("sym_", "_assert")) else name


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))


def program_inputs(program: Any) -> list[str]:
    """Names of the inputs of a program."""
    return [str(name) for name in program.graph_signature.user_inputs if isinstance(name, str)]
