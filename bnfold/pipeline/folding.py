"""`bnfold.fold`: a model in, the same kind of model without its BatchNorms out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from bnfold.errors import UsageError
from bnfold.planning.choices import Choices
from bnfold.planning.exclusion import patterns_of
from bnfold.planning.folded import Folded
from bnfold.quiet import quiet


def fold(
    model: Any,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    prefer: str = "module",
    *,
    leftover: str = "keep",
    norm_affine: bool = False,
    duplicate: str = "auto",
    exclude: str | Sequence[str] = (),
) -> Folded:
    """Remove every BatchNorm that can be removed by rewriting weights. The argument is not changed.

    Args:
        model: `torch.nn.Module`, `torch.export.ExportedProgram`, `onnx.ModelProto` or `onnx_ir.Model`.
        example_inputs: What to call a Module with: a tensor, a tuple of positional or a mapping of keyword arguments.
            The other kinds need none.
        dynamic_shapes: Sizes that may vary when a Module is followed, as `torch.export.export` takes them.
        prefer: For a Module: `"module"` returns an object of the same class wherever that removes as many BatchNorms,
            `"graph"` always what `torch.export.unflatten` makes of the folded program.
        leftover: What a BatchNorm that must stay becomes: `"keep"` as it is, `"affine"` Mul and Add (a single Add where
            its scale can go elsewhere), `"conv"` a depthwise 1×1 Conv. A Module where one stays becomes a graph then.
        norm_affine: Whether the scale and bias of LayerNormalization, RMSNormalization, GroupNormalization and
            InstanceNormalization are folded into what reads them, too.
        duplicate: Whether operators that share a weight may get copies of it where that removes BatchNorms:
            `"never"`, `"auto"` (while the weights grow by at most 5 % or 1 MB) or `"always"`.
        exclude: BatchNorms that stay as they are: their names, modules they lie in, or patterns (`*`, `?`) of either.

    Returns:
        The new model, of the same kind, and the plan; `plan.notes` says where a Module became a graph, and why.

    Raises:
        UsageError: For any other kind, a Module in training mode, or arguments that do not fit.
        UnsupportedError: For a Module that torch cannot export, or whose weights are not there.
    """
    _refuse_files(model)
    choices = Choices(leftover, norm_affine, duplicate, patterns_of(exclude))
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if _comes_from_torch(model):
        return _fold_torch(model, kind, example_inputs, dynamic_shapes, prefer, choices)
    import onnx
    import onnx_ir as ir

    from bnfold.frontends.from_proto import read_proto
    from bnfold.frontends.onnx import fold_model, without_pauses
    from bnfold.frontends.to_proto import write_proto

    if isinstance(model, ir.Model):
        folded, plan = fold_model(model, choices)
        return Folded(folded, plan)
    if isinstance(model, onnx.ModelProto):
        with without_pauses():
            read, origin = read_proto(model)
            folded, plan = fold_model(read, choices, copy=False)
            return Folded(write_proto(folded, origin), plan)
    raise UsageError(
        "bnfold.fold takes a torch.nn.Module, a torch.export.ExportedProgram, an onnx.ModelProto or an onnx_ir.Model, "
        f"not a {kind}",
        "Pass the model itself.",
    )


def _refuse_files(model: Any) -> None:
    """What belongs to `convert`: a path, and weights without their network."""
    if isinstance(model, (str, os.PathLike)):
        raise UsageError(
            f"bnfold.fold takes a model in memory, not a path: {os.fspath(model)!r}",
            "Use bnfold.convert(path, output); where the file holds weights only, with arch=.",
        )
    if isinstance(model, Mapping):
        raise UsageError(
            "bnfold.fold takes a network, not a state dict, which holds weights only",
            "Call model.load_state_dict(state) and pass model.eval(), or use bnfold.convert(path, output, arch=...).",
        )


def _fold_torch(
    model: Any, kind: str, example_inputs: Any, dynamic_shapes: Any, prefer: str, choices: Choices
) -> Folded:
    import torch

    from bnfold.frontends.aten.fold import fold_program
    from bnfold.frontends.modules.fold import fold_module

    with quiet():
        if isinstance(model, torch.export.ExportedProgram):
            return Folded(*fold_program(model, choices))
        if isinstance(model, torch.nn.Module):
            return Folded(*fold_module(model, example_inputs, dynamic_shapes, prefer, choices))
    raise UsageError(f"bnfold.fold cannot take a {kind}", "Pass a torch.nn.Module or a torch.export.ExportedProgram.")


def _comes_from_torch(model: Any) -> bool:
    return any(base.__module__.split(".")[0] == "torch" for base in type(model).__mro__)
