"""Normalisations, and the products of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bnfold.float64.call import Call, Elsewhere, Operator
from bnfold.float64.elementwise import _single

EPSILON = _single(1e-5)


def batch_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """BatchNormalization at inference."""
    if call.get("training_mode", 0) or (call.opset < 7 and not call.get("is_test", 0)) or call.outputs > 1:
        raise Elsewhere
    full = (-1, *(1,) * (x.ndim - 2))
    if not call.get("spatial", 1):
        full = tuple(x.shape[1:])
    factor = scale / torch.sqrt(var + call.get("epsilon", EPSILON))
    return (x - mean.reshape(full)) * factor.reshape(full) + bias.reshape(full)


def instance_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """InstanceNormalization."""
    return _channels(_standardised(x, tuple(range(2, x.ndim)), call.get("epsilon", EPSILON)), scale, bias)


def group_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """GroupNormalization; before opset 21 its scale belongs to groups."""
    groups = call.get("num_groups")
    parts = x.reshape(x.shape[0], groups, -1)
    y = _standardised(parts, (2,), call.get("epsilon", EPSILON)).reshape(x.shape)
    if scale.numel() == groups != x.shape[1]:
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return _channels(y, scale, bias)


def layer_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
    """LayerNormalization with its mean and inverse deviation."""
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + call.get("epsilon", EPSILON))
    y = (x - mean) * inverse * scale
    return (y if bias is None else y + bias, mean, inverse)[: max(call.outputs, 1)]


def rms_norm(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """RMSNormalization."""
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + call.get("epsilon", EPSILON)) * scale


def lp_norm(call: Call, x: Tensor) -> Tensor:
    """LpNormalization; a norm of 0 leaves zeros."""
    p, axis = call.get("p", 2), call.get("axis", -1)
    norm = x.norm(p=p, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def mean_variance(call: Call, x: Tensor) -> Tensor:
    """MeanVarianceNormalization."""
    return _standardised(x, tuple(call.get("axes", (0, 2, 3))), _single(1e-9), outside=True)


def lrn(call: Call, x: Tensor) -> Tensor:
    """LRN: by the squares of the channels around."""
    size = call.get("size")
    squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
    around = F.pad(squares, (0, 0, (size - 1) // 2, size - 1 - (size - 1) // 2))
    total = around.unfold(2, size, 1).sum(-1).reshape(x.shape)
    alpha, beta, bias = call.get("alpha", _single(1e-4)), call.get("beta", 0.75), call.get("bias", 1.0)
    return x / torch.pow(bias + alpha / size * total, beta)


def _standardised(x: Tensor, axes: tuple[int, ...], epsilon: float, *, outside: bool = False) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    return centred / (variance.sqrt() + epsilon if outside else torch.sqrt(variance + epsilon))


def _channels(y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    full = (-1, *(1,) * (y.ndim - 2))
    return y * scale.reshape(full) + bias.reshape(full)


def gemm(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gemm."""
    x = x.T if call.get("transA", 0) else x
    weight = weight.T if call.get("transB", 0) else weight
    y = x @ weight if call.get("alpha", 1.0) == 1.0 else call.get("alpha", 1.0) * (x @ weight)
    return y if bias is None else y + bias * call.get("beta", 1.0)


def einsum(call: Call, *xs: Tensor) -> Tensor:
    """Einsum."""
    return torch.einsum(call.get("equation").replace(" ", ""), *xs)


NORMALISE: dict[str, Operator] = {
    "BatchNormalization": batch_norm,
    "Einsum": einsum,
    "Gemm": gemm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": lrn,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_norm,
    "MatMul": lambda call, x, y: torch.matmul(x, y),
    "MeanVarianceNormalization": mean_variance,
    "RMSNormalization": rms_norm,
}
