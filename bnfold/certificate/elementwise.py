"""What operators that work number by number mean, as forms: BatchNormalization, arithmetic, sums, copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from bnfold.certificate.bounds import Bound
from bnfold.certificate.forms import Dead, Form, Mismatch, settled, spread
from bnfold.certificate.sides import Of, Side, rank_of, sizes_of
from bnfold.frontends.context import attr, not_at_inference, only_output

CONSTANT_OVER_SIGMAS = 1000.0  # a BatchNorm whose result rounds to beta this far from the mean may be read as beta
SIGNIFICANDS = {ir.DataType.FLOAT16: 11, ir.DataType.BFLOAT16: 8, ir.DataType.DOUBLE: 53}


def identity(side: Side, node: ir.Node, of: Of) -> Form | None:
    """A copy; Dropout at inference and a Cast to the same type are copies."""
    x = node.inputs[0]
    assert x is not None
    if node.op_type == "Dropout":
        training = side.array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
        if (node.version or 13) < 7 or training is None or training.any() or not only_output(node):
            return None
    if node.op_type == "Cast" and x.dtype != node.outputs[0].dtype:
        return None
    return of(x) if side.is_feature(x) else None


def negative(side: Side, node: ir.Node, of: Of) -> Form | None:
    """`-x`."""
    x = node.inputs[0]
    if x is None or not side.is_feature(x):
        return None
    rank = rank_of(node.outputs[0])
    return of(x).scaled(Bound.filled(-1.0, rank), Bound.filled(0.0, rank))


def batch_norm(side: Side, node: ir.Node, of: Of) -> Form | None:
    """BatchNormalization at inference (ONNX specification): `gamma·(x − mean)/sqrt(var + eps) + beta`."""
    x = node.inputs[0]
    parts = [side.bound(v) for v in node.inputs[1:5]]
    if x is None or not side.is_feature(x) or not_at_inference(node) is not None or len(parts) < 4:
        return None
    if any(part is None for part in parts):
        return None
    gamma, beta, mean, var = parts  # of these, a fold rewrites gamma and beta
    assert gamma is not None
    assert beta is not None
    assert mean is not None
    assert var is not None
    rank, eps = rank_of(x), float(attr(node, "epsilon", 1e-5))
    with np.errstate(all="ignore"):
        root = Bound.exact(1.0 / np.sqrt(var.mid + eps))
    scale = gamma * root
    shift = beta - scale * Bound.exact(mean.mid)
    if not (np.isfinite(scale.mid).all() and np.isfinite(shift.mid).all()):
        return None
    form = of(x).scaled(spread(scale, 1, rank), spread(shift, 1, rank))
    bits = SIGNIFICANDS.get(x.dtype, 24)  # type: ignore[arg-type]
    dead = CONSTANT_OVER_SIGMAS * np.abs(gamma.mid) <= np.abs(beta.mid) * 0.5 ** (bits + 1)
    if not dead.any():
        return form
    shape = [1] * rank
    shape[1] = -1
    constant = Bound(beta.mid.reshape(shape), np.abs(beta.mid.reshape(shape)) * 0.5**bits)
    return replace(form, dead=Dead(dead.reshape(shape), constant))


def arithmetic(side: Side, node: ir.Node, of: Of) -> Form | None:
    """Add and Sub of two tensors; Add, Sub, Mul and Div of a tensor and a constant."""
    left, right = node.inputs[:2]
    assert left is not None
    assert right is not None
    if (node.version or 7) < 7:
        return None
    rank, kind = rank_of(node.outputs[0]), node.op_type
    if side.is_feature(left) and side.is_feature(right):
        if kind in ("Mul", "Div") or not (rank_of(left) == rank_of(right) == rank):
            return None
        return _sum(side, of(left), of(right), 1.0 if kind == "Add" else -1.0)
    x, constant = (left, right) if side.is_feature(left) else (right, left)
    c = side.bound(constant)
    if c is None or not side.is_feature(x) or rank_of(x) != rank:
        return None
    c = c.moved(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape))
    if any(size not in (1, mine) for size, mine in zip(c.mid.shape, sizes_of(x), strict=True)):
        return None  # it makes the tensor larger, or may
    one, zero = Bound.filled(1.0, rank), Bound.filled(0.0, rank)
    if kind == "Mul":
        return of(x).scaled(c, zero)
    if kind == "Div":
        return None if x is right or not c.mid.all() else of(x).scaled(c.inverse(), zero)
    if kind == "Add":
        return of(x).scaled(one, c)
    return of(x).scaled(-one, c) if x is right else of(x).scaled(one, -c)


def total(side: Side, node: ir.Node, of: Of) -> Form | None:
    """The sum of any number of tensors."""
    values = [v for v in node.inputs if v is not None]
    rank = rank_of(node.outputs[0])
    if not all(side.is_feature(v) and rank_of(v) == rank for v in values):
        return None
    form = of(values[0])
    for value in values[1:]:
        form = _sum(side, form, of(value), 1.0)
    return form


def _sum(side: Side, one: Form, two: Form, sign: float) -> Form:
    """A sum; constant channels are read as constants only where it is none else, as padding tells them apart."""
    try:
        return one.plus(two, sign)
    except Mismatch:
        return settled(one, side.fixed).plus(settled(two, side.fixed), sign)
