"""A small float64 interpreter of ONNX graphs in PyTorch (onnxruntime's CPU provider has no float64 Conv).

It shares nothing with naive.py, so that the two check each other; `onnx.reference` checks both on a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

Attrs = Mapping[str, Any]
Values = Mapping[str, Tensor]


def run(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The graph outputs for these feeds (an initializer that is fed is overridden)."""
    graph = model.graph
    values = {tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor))) for tensor in graph.initializer}
    values.update({name: torch.from_numpy(np.array(value)) for name, value in feeds.items()})
    for node in graph.node:
        attrs = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        inputs = [values[name] if name else None for name in node.input]
        result = OPS[node.op_type](attrs, *inputs)
        written = result if isinstance(result, (list, tuple)) else (result,)
        values.update(zip(node.output, written, strict=False))
    return {output.name: values[output.name].numpy() for output in graph.output}


def _padded(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    half = len(pads) // 2
    flat = [size for axis in reversed(range(half)) for size in (pads[axis], pads[axis + half])]
    return F.pad(x, flat, value=value) if any(flat) else x


def _spatial(a: Attrs, x: Tensor) -> tuple[list[int], list[int], list[int]]:
    rank = x.ndim - 2
    assert a.get("auto_pad", b"NOTSET") == b"NOTSET"
    return list(a.get("strides", [1] * rank)), list(a.get("pads", [0] * 2 * rank)), list(a.get("dilations", [1] * rank))


def _conv(a: Attrs, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, pads, dilations = _spatial(a, x)
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim]
    padded = _padded(x, pads, 0.0)
    return function(padded, weight, bias, stride=strides, dilation=dilations, groups=a.get("group", 1))


def _conv_transpose(a: Attrs, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, pads, dilations = _spatial(a, x)
    rank = x.ndim - 2
    function = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[x.ndim]
    full = function(x, weight, None, stride=strides, dilation=dilations, groups=a.get("group", 1))
    extra = list(a.get("output_padding", [0] * rank))
    full = F.pad(full, [size for axis in reversed(range(rank)) for size in (0, extra[axis])])
    for axis in range(rank):
        full = full.narrow(axis + 2, pads[axis], full.shape[axis + 2] - pads[axis] - pads[axis + rank])
    return full if bias is None else full + bias.reshape(-1, *(1,) * rank)


def _gemm(a: Attrs, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.T if a.get("transA", 0) else x
    weight = weight.T if a.get("transB", 0) else weight
    result = a.get("alpha", 1.0) * (x @ weight)
    return result if bias is None else result + a.get("beta", 1.0) * bias


def _bn(a: Attrs, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    assert not a.get("training_mode", 0)
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=a.get("epsilon", 1e-5))


def _max_pool(a: Attrs, x: Tensor) -> Tensor:
    strides, pads, dilations = _spatial(a, x)
    return F.max_pool2d(_padded(x, pads, -torch.inf), list(a["kernel_shape"]), strides, dilation=dilations)


def _average_pool(a: Attrs, x: Tensor) -> Tensor:
    strides, pads, _ = _spatial(a, x)
    kernel = list(a["kernel_shape"])
    mean = F.avg_pool2d(_padded(x, pads, 0.0), kernel, strides)
    if a.get("count_include_pad", 0):
        return mean
    return mean / F.avg_pool2d(_padded(torch.ones_like(x), pads, 0.0), kernel, strides)


def _pad(a: Attrs, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    flat = pads.tolist()
    if axes is not None:
        full = [0] * (2 * x.ndim)
        for index, axis in enumerate(axes.tolist()):
            full[axis], full[axis + x.ndim] = flat[index], flat[index + len(axes)]
        flat = full
    mode = a.get("mode", b"constant").decode()
    if mode == "constant":
        return _padded(x, flat, 0.0 if value is None else float(value))
    spatial = [flat[3], flat[7], flat[2], flat[6]]
    return F.pad(x, spatial, mode={"edge": "replicate", "reflect": "reflect"}[mode])


def _resize(a: Attrs, x: Tensor, roi: Tensor | None, scales: Tensor) -> Tensor:
    assert scales.tolist() == [1.0, 1.0, 2.0, 2.0]
    assert a["mode"] == b"nearest"
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _reshape(a: Attrs, x: Tensor, shape: Tensor) -> Tensor:
    sizes = shape.tolist()
    if not a.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _prelu(a: Attrs, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _slice(
    a: Attrs, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    which = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    keys = [slice(None)] * x.ndim
    for axis, start, end, stride in zip(which, starts.tolist(), ends.tolist(), strides, strict=True):
        keys[axis] = slice(start, min(end, x.shape[axis]), stride)
    return x[tuple(keys)]


def _axes(axes: Tensor | None) -> list[int]:
    assert axes is not None
    return list(axes.tolist())


OPS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda a, x, y: x @ y,
    "BatchNormalization": _bn,
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "Max": lambda a, *xs: torch.stack(torch.broadcast_tensors(*xs)).amax(0),
    "Neg": lambda a, x: -x,
    "Relu": lambda a, x: x.relu(),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "PRelu": _prelu,
    "Abs": lambda a, x: x.abs(),
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Tanh": lambda a, x: x.tanh(),
    "Softplus": lambda a, x: F.softplus(x, threshold=1e9),
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "Clip": lambda a, x, low, high: x.clamp(low, high),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "Resize": _resize,
    "Pad": _pad,
    "Identity": lambda a, x: x.clone(),
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Split": lambda a, x, sizes: torch.split(x, sizes.tolist(), a.get("axis", 0)),
    "Gather": lambda a, x, indices: x.index_select(a.get("axis", 0), indices),
    "Slice": _slice,
    "Flatten": lambda a, x: x.reshape(int(np.prod(x.shape[: a.get("axis", 1)])), -1),
    "Reshape": _reshape,
    "Transpose": lambda a, x: x.permute(*a["perm"]),
    "Squeeze": lambda a, x, axes=None: x.squeeze(_axes(axes)),
    "Unsqueeze": lambda a, x, axes=None: x.reshape(
        [1 if axis in _axes(axes) else x.shape[axis - sum(b < axis for b in _axes(axes))]
         for axis in range(x.ndim + len(_axes(axes)))]
    ),
}  # fmt: skip
