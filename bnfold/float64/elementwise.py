"""Operators that treat every element alike, comparisons, and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnfold.float64.call import Call, Elsewhere, Operator

SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # the defaults of the standard, in float32 there


def _legacy(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """The second operand of a binary operator before opset 7, which said where it belongs."""
    if call.opset >= 7 or not call.get("broadcast", 0) or "axis" not in call.attrs:
        return y
    axis = call.get("axis") % x.ndim
    return y.reshape(*y.shape, *(1,) * (x.ndim - axis - y.ndim))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call, x, y: function(x, _legacy(call, x, y))


def _div(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.dtype.is_floating_point else torch.div(x, y, rounding_mode="trunc")


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call, *xs: reduce(function, xs)


def _mean(call: Call, *xs: Tensor) -> Tensor:
    return reduce(torch.add, xs) / len(xs)


def _pow(call: Call, x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x.double(), y.double()).to(x.dtype)


def _mod(call: Call, x: Tensor, y: Tensor) -> Tensor:
    return torch.fmod(x, y) if call.get("fmod", 0) else torch.remainder(x, y)


def _clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if call.opset < 11:
        return x.clamp(call.get("min", -math.inf), call.get("max", math.inf))
    x = x if low is None else torch.maximum(x, low.to(x.dtype))
    return x if high is None else torch.minimum(x, high.to(x.dtype))


def _gelu(call: Call, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=call.get("approximate", "none"))


def _hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    slope: float = call.get("alpha", _single(0.2))
    offset: float = call.get("beta", 0.5)
    return (slope * x + offset).clamp(0, 1)


def _single(value: float) -> float:
    """A default of the standard, which is a float32."""
    return float(torch.tensor(value, dtype=torch.float32))


def _elu(call: Call, x: Tensor) -> Tensor:
    return torch.where(x > 0, x, call.get("alpha", 1.0) * torch.expm1(x.clamp(max=0)))


def _selu(call: Call, x: Tensor) -> Tensor:
    alpha: float = call.get("alpha", SELU[0])
    gamma: float = call.get("gamma", SELU[1])
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _celu(call: Call, x: Tensor) -> Tensor:
    alpha: float = call.get("alpha", 1.0)
    return x.clamp(min=0) + alpha * torch.expm1(x.clamp(max=0) / alpha)


def _shrink(call: Call, x: Tensor) -> Tensor:
    limit, bias = call.get("lambd", 0.5), call.get("bias", 0.0)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x)))


def _prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    if call.opset < 7 and slope.numel() > 1:
        slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
    return torch.where(x < 0, slope * x, x)


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def run(call: Call, x: Tensor) -> Tensor:
        if call.opset >= 13:
            return function(x, call.get("axis", -1))
        axis = call.get("axis", 1) % x.ndim if x.ndim else 0  # everything from there on is one axis
        return function(x.flatten(axis), axis).reshape(x.shape)

    return run


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def run(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = call.axes(given, x.ndim)
        if not axes and call.get("noop_with_empty_axes", 0):
            return function(x.unsqueeze(-1), [x.ndim], False)
        return function(x, axes or list(range(x.ndim)), bool(call.get("keepdims", 1)))

    return run


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype) if axes else x


def _average(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if not x.dtype.is_floating_point:
        raise Elsewhere
    return x.mean(axes, keepdim=keep) if axes else x


def _arg(function: Callable[..., Tensor]) -> Operator:
    def run(call: Call, x: Tensor) -> Tensor:
        axis = call.get("axis", 0) % x.ndim
        if call.get("select_last_index", 0):
            return torch.rsub(function(x.flip(axis), axis, bool(call.get("keepdims", 1))), x.shape[axis] - 1)
        return function(x, axis, bool(call.get("keepdims", 1)))

    return run


def _unary(function: Callable[[Tensor], Any]) -> Operator:
    return lambda call, x: function(x)


UNARY: dict[str, Callable[[Tensor], Any]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
    "Atan": torch.atan, "Atanh": torch.atanh, "BitwiseNot": torch.bitwise_not, "Ceil": torch.ceil, "Cos": torch.cos,
    "Cosh": torch.cosh, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "HardSwish": F.hardswish,
    "IsNaN": torch.isnan, "Log": torch.log, "Mish": lambda x: x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x))),
    "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": torch.relu,
    "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)), "Softsign": lambda x: x / (1 + x.abs()),
    "Sqrt": torch.sqrt, "Tan": torch.tan, "Tanh": torch.tanh,
}  # fmt: skip

BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add, "And": torch.logical_and, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor, "Div": _div, "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge,
    "Less": torch.lt, "LessOrEqual": torch.le, "Mul": torch.mul, "Or": torch.logical_or, "Sub": torch.sub,
    "Xor": torch.logical_xor,
}  # fmt: skip

REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: _sum(x * x, axes, keep).sqrt(),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep) if axes else x,
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep) if axes else x,
    "ReduceMean": _average,
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep) if axes else x,
    "ReduceProd": _prod,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}

ELEMENTWISE: dict[str, Operator] = {
    **{name: _unary(function) for name, function in UNARY.items()},
    **{name: _binary(function) for name, function in BINARY.items()},
    **{name: _reduction(function) for name, function in REDUCTIONS.items()},
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Celu": _celu,
    "Clip": _clip,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "Hardmax": _softmax(_hardmax),
    "LeakyRelu": lambda call, x: torch.where(x < 0, call.get("alpha", _single(0.01)) * x, x),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Max": _folded(torch.maximum),
    "Mean": _mean,
    "Min": _folded(torch.minimum),
    "Mod": _mod,
    "PRelu": _prelu,
    "Pow": _pow,
    "Selu": _selu,
    "Shrink": _shrink,
    "Softmax": _softmax(torch.softmax),
    "Sum": _folded(torch.add),
    "Swish": lambda call, x: x * torch.sigmoid(call.get("alpha", 1.0) * x),
    "ThresholdedRelu": lambda call, x: torch.where(x > call.get("alpha", 1.0), x, torch.zeros_like(x)),
    "Where": lambda call, condition, x, y: torch.where(condition, x, y),
}
