"""The picture of whatever a command has at hand: ONNX models, exported programs, or networks that torch exports for it.

A network that was proved was exported for that, and what is drawn is the same program.
"""

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
        before: An ONNX model in memory or the path of one, an exported program, or what is verified and timed, both
            models alike.
        after: The same; None draws the first alone.
        plan: What became of the BatchNorms, where that is known.

    Returns:
        The picture; None where the model before shows no graph, as a module does of which nobody says how to call it.

    Raises:
        UnsupportedError: torch cannot export a network that is verified or timed.
    """
    opened = [model for model in (before, after) if isinstance(model, (OnnxSubject, TorchSubject))]
    if any(isinstance(subject, TorchSubject) for subject in opened):
        from bnfold.running.traces import traced_alike

        programs = dict(zip(map(id, opened), traced_alike(opened), strict=True))
        before, after = programs.get(id(before)) or before, programs.get(id(after)) or after
    one = view(before)
    if one is None:
        return None
    return draw(one, None if after is None else view(after), plan)


def view(model: object) -> View | None:
    """What there is to draw of a model; None for a module, of which only an export would tell (`drawn`)."""
    import onnx_ir

    if isinstance(model, OnnxSubject):
        model = model.model
    elif isinstance(model, (str, os.PathLike)):
        model = as_ir(model)
    if isinstance(model, onnx_ir.Model):
        from bnfold.reporting.picture.from_onnx import view_onnx

        return view_onnx(model)
    if not type(model).__module__.startswith("torch.export"):
        return None
    from bnfold.reporting.picture.from_program import view_program

    return view_program(model)  # type: ignore[arg-type]
