"""Local functions written out where they are called."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from bnfold.errors import UnsupportedError
from bnfold.wording import first_line


def inlined(model: ir.Model) -> ir.Model:
    """A model without functions, changed in place where it has some.

    Raises:
        UnsupportedError: A function cannot be written out, as where it needs another opset than the model.
    """
    if not model.functions:
        return model
    try:
        return InlinePass()(model).model
    except Exception as error:  # onnx_ir raises whatever a function that does not fit made it trip over
        raise UnsupportedError(
            f"a function of the model cannot be written out ({first_line(error)})", "Inline its functions first."
        ) from error
