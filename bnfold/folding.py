"""`bnfold.fold`: a model in, the same kind of model without its BatchNorms out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnfold.choices import Choices
from bnfold.errors import UnsupportedError, UsageError
from bnfold.plan import Plan


@dataclass(frozen=True)
class Folded:
    """A folded model and what was done to it.

    Attributes:
        model: The same kind of object as went in.
        plan: The fate of every BatchNorm.
    """

    model: Any
    plan: Plan


def fold(
    model: Any,
    example_inputs: Any = None,
    *,
    leftover: str = "keep",
    norm_affine: bool = False,
    duplicate: str = "auto",
) -> Folded:
    """Remove every BatchNorm that can be removed by rewriting weights. The argument is not changed.

    Args:
        model: `onnx.ModelProto` or `onnx_ir.Model`.
        example_inputs: Not needed for ONNX.
        leftover: What a BatchNorm that must stay becomes: `"keep"` as it is, `"affine"` Mul and Add (a single Add where
            its scale can go elsewhere), `"conv"` a depthwise 1×1 Conv.
        norm_affine: Whether the scale and bias of LayerNormalization, RMSNormalization, GroupNormalization and
            InstanceNormalization are folded into what reads them, too.
        duplicate: Whether operators that share a weight may get copies of it where that removes BatchNorms: `"never"`,
            `"auto"` (while the weights grow by at most 5 % or 1 MB) or `"always"`.

    Returns:
        The new model, of the same kind, and the plan.

    Raises:
        UnsupportedError: For a `torch.nn.Module` or `torch.export.ExportedProgram`.
        UsageError: For anything else, or a leftover that does not exist.
    """
    import onnx
    import onnx_ir as ir

    from bnfold.frontends.onnx import fold_model, without_pauses

    choices = Choices(leftover, norm_affine, duplicate)
    if isinstance(model, ir.Model):
        folded, plan = fold_model(model, choices)
        return Folded(folded, plan)
    if isinstance(model, onnx.ModelProto):
        with without_pauses():
            folded, plan = fold_model(ir.serde.deserialize_model(model), choices, copy=False)
            return Folded(ir.serde.serialize_model(folded), plan)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if _comes_from_torch(model):
        raise UnsupportedError(
            f"bnfold.fold cannot take a {kind} yet",
            "Export it with bnfold.convert(...) or torch.onnx.export(..., dynamo=True, optimize=False), and fold that.",
        )
    raise UsageError(
        f"bnfold.fold takes an onnx.ModelProto or an onnx_ir.Model, not a {kind}", "Pass the model itself."
    )


def _comes_from_torch(model: Any) -> bool:
    return any(base.__module__.split(".")[0] == "torch" for base in type(model).__mro__)
