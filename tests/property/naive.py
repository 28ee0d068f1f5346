"""The plain meaning of every operator, in float64 NumPy, written from its definition.

Images are float64[N, C, H, W]; kernels visit their taps one by one. `step` is the whole semantics of a `Spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .spec import Step

Array = NDArray[np.float64]


def out_size(size: int, kernel: int, stride: int, dilation: int, begin: int, end: int) -> int:
    """Number of positions a window visits along one axis (floor mode)."""
    return (size + begin + end - dilation * (kernel - 1) - 1) // stride + 1


def _taps(x: Array, attrs: Mapping[str, Any], fill: float) -> tuple[list[tuple[int, int, Array]], Array]:
    """The padded image seen from each kernel tap: [(i, j, float64[N, C, H', W'])], and which values are real."""
    (kh, kw), (sh, sw), (dh, dw) = attrs["kernel"], attrs["strides"], attrs.get("dilations", (1, 1))
    top, left, bottom, right = attrs["pads"]
    height = out_size(x.shape[2], kh, sh, dh, top, bottom)
    width = out_size(x.shape[3], kw, sw, dw, left, right)
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(x, edges, constant_values=fill)
    real = np.pad(np.ones((1, 1, *x.shape[2:])), edges)
    views, counts = [], np.zeros((1, 1, height, width))
    for i, j in product(range(kh), range(kw)):
        rows = slice(i * dh, i * dh + sh * (height - 1) + 1, sh)
        cols = slice(j * dw, j * dw + sw * (width - 1) + 1, sw)
        views.append((i, j, padded[:, :, rows, cols]))
        counts = counts + real[:, :, rows, cols]
    return views, counts


def conv(x: Array, weight: Array, bias: Array | None, attrs: Mapping[str, Any]) -> Array:
    """Convolution, weight float64[O, I/groups, kh, kw]."""
    groups = attrs["groups"]
    kernel = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    total: Array | float = 0.0
    for i, j, view in _taps(x, attrs, 0.0)[0]:
        n, c, h, w = view.shape
        total = total + np.einsum("ngchw,goc->ngohw", view.reshape(n, groups, c // groups, h, w), kernel[..., i, j])
    result = np.asarray(total)
    result = result.reshape(result.shape[0], weight.shape[0], *result.shape[3:])
    return result if bias is None else result + bias[:, None, None]


def conv_transpose(x: Array, weight: Array, bias: Array | None, attrs: Mapping[str, Any]) -> Array:
    """Transposed convolution: every input pixel stamps the kernel; weight float64[I, O/groups, kh, kw]."""
    groups, (kh, kw), (sh, sw) = attrs["groups"], attrs["kernel"], attrs["strides"]
    (extra_h, extra_w), (top, left, bottom, right) = attrs["output_padding"], attrs["pads"]
    n, c, h, w = x.shape
    kernel = weight.reshape(groups, c // groups, *weight.shape[1:])
    grouped = x.reshape(n, groups, c // groups, h, w)
    full = np.zeros((n, groups, weight.shape[1], sh * (h - 1) + kh + extra_h, sw * (w - 1) + kw + extra_w))
    for i, j in product(range(kh), range(kw)):
        stamp = np.einsum("ngchw,gco->ngohw", grouped, kernel[..., i, j])
        full[..., i : i + sh * (h - 1) + 1 : sh, j : j + sw * (w - 1) + 1 : sw] += stamp
    full = full[..., top : full.shape[3] - bottom, left : full.shape[4] - right]
    result = full.reshape(n, groups * weight.shape[1], *full.shape[3:])
    return result if bias is None else result + bias[:, None, None]


def affine_of(step: Step) -> tuple[Array, Array]:
    """A BatchNorm's scale and shift, float64[C] each."""
    c = step.consts
    scale = c["gamma"] / np.sqrt(c["var"] + step.attrs["epsilon"])
    return scale, c["beta"] - scale * c["mean"]


def _bn(step: Step, x: Array) -> Array:
    scale, shift = affine_of(step)
    column = (-1, *(1,) * (x.ndim - 2))
    return x * scale.reshape(column) + shift.reshape(column)


def _average(step: Step, x: Array) -> Array:
    views, counts = _taps(x, step.attrs, 0.0)
    total = sum((view for _, _, view in views), np.zeros(()))
    return np.asarray(total / (len(views) if step.attrs["count_include_pad"] else counts))


def _gemm(step: Step, x: Array) -> Array:
    weight = step.consts["weight"].T if step.attrs["transB"] else step.consts["weight"]
    result = step.attrs["alpha"] * (x @ weight)
    return result + step.attrs["beta"] * step.consts["bias"] if "bias" in step.consts else result


def _pad(step: Step, x: Array) -> Array:
    top, left, bottom, right = step.attrs["pads"]
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode=step.attrs["mode"])


def _rigid(step: Step, x: Array) -> Array:
    kind = step.attrs["kind"]
    if kind == "Sigmoid":
        with np.errstate(over="ignore"):  # 1 / inf is the 0 it should be
            return 1.0 / (1.0 + np.exp(-x))
    if kind == "Tanh":
        return np.tanh(x)
    if kind == "Softplus":
        return np.logaddexp(0.0, x)
    if kind == "Clip":
        return np.clip(x, -0.5, 0.5)
    exp = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def _elementwise(kind: str, a: Array, b: Array) -> Array:
    if kind == "mul":
        return a * b
    if kind == "add":
        return a + b
    return a - b if kind == "sub" else a / b


def _const(step: Step, x: Array) -> Array:
    value = step.consts["value"]
    left, right = (value, x) if step.attrs.get("reverse") else (x, value)
    return _elementwise(step.attrs["kind"], left, right)


def _slope(step: Step, x: Array) -> Array:
    return np.where(x < 0, x * step.consts["slope"], x)


OPS: dict[str, Callable[..., Any]] = {
    "conv": lambda s, x: conv(x, s.consts["weight"], s.consts.get("bias"), s.attrs),
    "conv_transpose": lambda s, x: conv_transpose(x, s.consts["weight"], s.consts.get("bias"), s.attrs),
    "gemm": _gemm,
    "matmul": lambda s, x: x @ s.consts["weight"],
    "bn": _bn,
    "const": _const,
    "table": _const,
    "relu": lambda s, x: np.maximum(x, 0.0),
    "leaky_relu": lambda s, x: np.where(x < 0, x * s.attrs["alpha"], x),
    "prelu": _slope,
    "abs": lambda s, x: np.abs(x),
    "rigid": _rigid,
    "max_pool": lambda s, x: np.max([view for _, _, view in _taps(x, s.attrs, -np.inf)[0]], axis=0),
    "average_pool": _average,
    "global_average_pool": lambda s, x: x.mean(axis=(2, 3), keepdims=True),
    "resize": lambda s, x: x.repeat(2, axis=2).repeat(2, axis=3),
    "pad": _pad,
    "identity": lambda s, x: x,
    "add": lambda s, a, b: a + b,
    "sub": lambda s, a, b: a - b,
    "max": lambda s, a, b: np.maximum(a, b),
    "gate": lambda s, a, b: a * b,
    "concat": lambda s, *xs: np.concatenate([*xs, *_tables(s, xs[0])], axis=s.attrs["axis"]),
    "split": lambda s, x: np.split(x, np.cumsum(s.attrs["sizes"])[:-1], axis=s.attrs["axis"]),
    "gather": lambda s, x: x[:, list(s.attrs["indices"])],
    "flatten": lambda s, x: x.reshape(x.shape[0], -1),
    "reshape": lambda s, x: x.reshape(s.attrs["shape"]),
    "transpose": lambda s, x: x.transpose(s.attrs["perm"]),
}


def _tables(step: Step, like: Array) -> Sequence[Array]:
    """A constant that is concatenated, repeated over the batch."""
    value = step.consts.get("value")
    return () if value is None else (np.broadcast_to(value, (like.shape[0], *value.shape[1:])),)


def step(one: Step, inputs: Sequence[Array]) -> list[Array]:
    """The values one step writes."""
    result = OPS[one.op](one, *inputs)
    return list(result) if isinstance(result, (list, tuple)) else [np.asarray(result)]


def evaluate(steps: Sequence[Step], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of a graph, by name."""
    values = dict(feeds)
    for one in steps:
        values.update(zip(one.writes, step(one, [values[name] for name in one.reads]), strict=True))
    return values
