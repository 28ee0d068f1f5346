"""The operators whose results are sums of linear maps, and what each of them means."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from bnfold.certificate.elementwise import arithmetic, batch_norm, identity, negative, total
from bnfold.certificate.forms import Form
from bnfold.certificate.linear import average, convolution, gemm, matmul, zero_pad
from bnfold.certificate.sides import Of, Side
from bnfold.frontends.context import FLOATS, ONNX_DOMAINS

Meaning = Callable[[Side, ir.Node, Of], "Form | None"]
MEANINGS: dict[str, Meaning] = {
    "Add": arithmetic,
    "BatchNormalization": batch_norm,
    "Cast": identity,
    "Conv": convolution,
    "ConvTranspose": convolution,
    "Div": arithmetic,
    "Dropout": identity,
    "Gemm": gemm,
    "Identity": identity,
    "MatMul": matmul,
    "Mul": arithmetic,
    "Neg": negative,
    "Pad": zero_pad,
    "Sub": arithmetic,
    "Sum": total,
}


def is_linear(node: ir.Node) -> bool:
    """Whether an operator may be linear."""
    return node.op_type in MEANINGS and node.domain in ONNX_DOMAINS and bool(node.outputs)


def meaning(side: Side, node: ir.Node, of: Of) -> Form | None:
    """What a linear operator makes of forms; None for any other operator.

    Args:
        side: The model it belongs to.
        node: The operator.
        of: The forms of its operands.

    Raises:
        Mismatch: It is linear, but not of forms like these.
    """
    if not is_linear(node):
        return None
    if any(side.is_feature(v) and v.dtype not in FLOATS for v in node.inputs[:1] if v is not None):
        return None
    return MEANINGS[node.op_type](side, node, of)


__all__ = ["MEANINGS", "average", "is_linear", "meaning"]
