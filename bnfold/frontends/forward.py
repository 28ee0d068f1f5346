"""Shapes that are plain to see: of a ReLU, a BatchNorm, a sum of equals, a convolution over known sizes.

Old exporters declare no shapes at all. Most of what a convolutional network then lacks follows from the operand in one
step; writing the model down for ONNX's own inference and reading its answer takes ten times as long. What a rule cannot
be sure of is left to that: a rule says nothing where a size has no name, or where the answer depends on more than it
looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from bnfold.frontends.context import ONNX_DOMAINS, attr, ints

Known = tuple[ir.TensorType, ir.Shape]


def plain_result(node: ir.Node) -> Known | None:
    """The type and shape of an operator's only result, None where they are not plain to see."""
    rule = RULES.get(node.op_type)
    if rule is None or node.domain not in ONNX_DOMAINS or len(node.outputs) != 1:
        return None
    return rule(node)


def _known(value: ir.Value | None) -> Known | None:
    """The type and shape of a value all of whose sizes are numbers or have names."""
    if value is None or not isinstance(value.type, ir.TensorType) or value.shape is None:
        return None
    if any(not isinstance(size, int) and size.value is None for size in value.shape):
        return None
    return value.type, value.shape


def _as_first(node: ir.Node) -> Known | None:
    """An operator whose result is like its first operand."""
    return _known(node.inputs[0]) if node.inputs else None


def _as_both(node: ir.Node) -> Known | None:
    """An operator on two operands that are alike."""
    if len(node.inputs) != 2:
        return None
    left, right = (_known(value) for value in node.inputs)
    return left if left == right else None


def _convolved(node: ir.Node) -> Known | None:
    """A convolution whose weight and padding are known, over an image of known sizes."""
    if len(node.inputs) < 2 or attr(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    x, weight = (_known(value) for value in node.inputs[:2])
    if x is None or weight is None or len(x[1]) != len(weight[1]):
        return None
    (batch, _, *image), (channels, _, *kernel) = x[1], weight[1]
    n = len(kernel)
    strides, dilations = ints(node, "strides", (1,) * n), ints(node, "dilations", (1,) * n)
    pads = ints(node, "pads", (0,) * (2 * n))
    if (len(strides), len(dilations), len(pads)) != (n, n, 2 * n) or 0 in strides:
        return None
    sizes: list[int] = []
    for i, (size, taps) in enumerate(zip(image, kernel, strict=True)):
        if not isinstance(size, int) or not isinstance(taps, int):
            return None
        sizes.append((size + pads[i] + pads[i + n] - dilations[i] * (taps - 1) - 1) // strides[i] + 1)
    if min(sizes, default=1) < 1:
        return None
    return x[0], ir.Shape([batch, channels, *sizes], frozen=True)


Rule = Callable[[ir.Node], "Known | None"]
RULES: dict[str, Rule] = {
    **dict.fromkeys(("BatchNormalization", "Clip", "Elu", "Identity", "LeakyRelu", "PRelu", "Relu"), _as_first),
    **dict.fromkeys(("HardSigmoid", "HardSwish", "Sigmoid", "Softmax", "Softplus", "Tanh"), _as_first),
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _as_both),
    "Conv": _convolved,
}
