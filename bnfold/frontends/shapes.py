"""Shapes and types where a model does not state them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from bnfold.frontends.context import FLOATS


def complete_shapes(model: ir.Model) -> None:
    """Infer missing shapes and types in place; the large weights are left out of it."""
    if any(_incomplete(v) for node in model.graph.all_nodes() for v in node.outputs):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def _incomplete(value: ir.Value) -> bool:
    """Whether a value that may be a feature has no known shape."""
    return bool(value.name) and (value.dtype is None or (value.dtype in FLOATS and value.shape is None))
