"""The picture of whatever a command has at hand: ONNX models, exported programs, or something that shows no graph."""

from __future__ import annotations

import os

from bnfold.planning.plan import Plan
from bnfold.reporting.picture.picture import Picture, draw
from bnfold.reporting.picture.views import View
from bnfold.running.runners import as_ir
from bnfold.running.subjects import OnnxSubject, TorchSubject


def drawn(before: object, after: object | None, plan: Plan | None = None) -> Picture | None:
    """Draws two models, or one.

    Args:
        before: An ONNX model in memory or the path of one, an exported program, or what is verified and timed.
        after: The same; None draws the first alone.
        plan: What became of the BatchNorms, where that is known.

    Returns:
        The picture; None where the model before shows no graph, as a module does.
    """
    one = view(before)
    if one is None:
        return None
    return draw(one, None if after is None else view(after), plan)


def view(model: object) -> View | None:
    """What there is to draw of a model; None for a module, of which only an export would tell."""
    import onnx_ir

    if isinstance(model, OnnxSubject):
        model = model.model
    elif isinstance(model, (str, os.PathLike)):
        model = as_ir(model)
    if isinstance(model, onnx_ir.Model):
        from bnfold.reporting.picture.from_onnx import view_onnx

        return view_onnx(model)
    if isinstance(model, TorchSubject) or not type(model).__module__.startswith("torch.export"):
        return None
    from bnfold.reporting.picture.from_program import view_program

    return view_program(model)  # type: ignore[arg-type]
