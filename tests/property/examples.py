"""Graphs whose best plan is known by hand: the theorems, each with the number of BatchNorms that must stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .spec import Builder, Spec

PADDED = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}
UNPADDED = {"kernel": (3, 3), "pads": (0, 0, 0, 0)}


@dataclass(frozen=True)
class Example:
    """A graph and what must be left of it.

    Attributes:
        name: What it is.
        spec: The graph.
        left: BatchNorms that must stay.
        affines_left: Other constant affines that must stay (None: not asserted).
        dead: It has zero gammas, which the exhaustive search does not model.
        merged: BatchNorms that go with a branch merge, which it does not model either.
    """

    name: str
    spec: Spec
    left: int
    affines_left: int | None = None
    dead: bool = False
    merged: int = 0


EXAMPLES: list[Example] = []


def _example(
    left: int, *, affines_left: int | None = None, dead: bool = False, merged: int = 0
) -> Callable[[Callable[[Builder], None]], Callable[[Builder], None]]:
    def register(build: Callable[[Builder], None]) -> Callable[[Builder], None]:
        builder = Builder(sum(map(ord, build.__name__)))
        build(builder)
        EXAMPLES.append(Example(build.__name__, builder.finish(), left, affines_left, dead, merged))
        return build

    return register


def _head(b: Builder, x: str) -> str:
    return b.gemm(b.op("flatten", b.op("global_average_pool", x)), 5)


@_example(0)
def conv_bn(b: Builder) -> None:
    b.bn(b.conv(b.input(3, 4, 4), 4, **PADDED), "mixed")


@_example(0)
def conv_bn_relu_conv_bn(b: Builder) -> None:
    x = b.op("relu", b.bn(b.conv(b.input(3, 4, 4), 4, **PADDED), "mixed"))
    b.op("relu", b.bn(b.conv(x, 2, **PADDED)))


@_example(0)
def bn_unpadded_conv(b: Builder) -> None:
    b.conv(b.bn(b.input(3, 4, 4), "mixed"), 2, **UNPADDED)


@_example(1)
def bn_padded_conv(b: Builder) -> None:
    b.conv(b.bn(b.input(3, 4, 4)), 2, **PADDED)


@_example(0)
def bn_padded_conv_to_one_position(b: Builder) -> None:
    """The padding is read, but there is only one output position, so the response is the same everywhere."""
    b.conv(b.bn(b.input(3, 2, 2)), 2, (4, 4), (1, 1, 1, 1))


@_example(1)
def bn_strided_conv_transpose(b: Builder) -> None:
    """Kernel = stride: no padding, but every output position sees another tap."""
    b.conv_transpose(b.bn(b.input(3, 3, 3)), 2, (2, 2), strides=(2, 2))


@_example(0)
def bn_pointwise_conv_transpose_bn(b: Builder) -> None:
    b.bn(b.conv_transpose(b.bn(b.input(4, 3, 3)), 4, (1, 1), groups=2), "mixed")


@_example(0)
def grouped_conv_transpose_bn(b: Builder) -> None:
    b.bn(b.conv_transpose(b.input(4, 3, 3), 6, (3, 3), (1, 1, 1, 1), (2, 2), (1, 1), groups=2), "mixed")


@_example(0)
def preact_stream(b: Builder) -> None:
    x = b.conv(b.input(3, 5, 5), 4, **PADDED)
    for _ in range(3):
        y = b.conv(b.op("relu", b.bn(x)), 4, **PADDED)
        y = b.conv(b.op("relu", b.bn(y, "mixed")), 4, **PADDED)
        x = b.op("add", x, y)
    _head(b, b.op("relu", b.bn(x)))


@_example(1)
def preact_stream_one_negative(b: Builder) -> None:
    x = b.conv(b.input(3, 5, 5), 4, **PADDED)
    for kind in ("positive", "negative", "positive"):
        x = b.op("add", x, b.conv(b.op("relu", b.bn(x, kind)), 4, **PADDED))
    _head(b, x)


@_example(0)
def preact_stream_all_negative(b: Builder) -> None:
    """The whole stream may change its sign."""
    x = b.conv(b.input(3, 5, 5), 4, **PADDED)
    for _ in range(3):
        x = b.op("add", x, b.conv(b.op("relu", b.bn(x, "negative")), 4, **PADDED))
    _head(b, x)


@_example(1)
def preact_stream_from_relu(b: Builder) -> None:
    """The stream starts behind a ReLU, so its first shift is 0 and the first BatchNorm has nowhere to go."""
    x = b.op("relu", b.conv(b.input(3, 5, 5), 4, **PADDED))
    for _ in range(2):
        x = b.op("add", x, b.conv(b.op("relu", b.bn(x)), 4, **PADDED))
    _head(b, x)


@_example(1)
def iresnet(b: Builder) -> None:
    x = b.prelu(b.bn(b.conv(b.input(3, 4, 4), 4, **PADDED)))
    for _ in range(2):
        y = b.prelu(b.bn(b.conv(b.bn(x), 4, **PADDED)))
        x = b.op("add", b.bn(b.conv(y, 4, **PADDED)), x)
    b.bn(b.gemm(b.op("flatten", b.bn(x)), 4))


@_example(1)
def two_readers(b: Builder) -> None:
    """Two BatchNorms on one conv: one folds, the other is rebased."""
    x = b.conv(b.input(3, 4, 4), 3, **PADDED)
    b.op("rigid", b.bn(x), kind="Sigmoid")
    b.op("rigid", b.bn(x), kind="Tanh")


@_example(1)
def reader_and_output(b: Builder) -> None:
    """The conv's output is a graph output as well, so it keeps its unit."""
    x = b.conv(b.input(3, 4, 4), 3)
    b.bn(x)
    b.op("identity", x)


@_example(0)
def concat_bn(b: Builder) -> None:
    x = b.input(3, 4, 4)
    b.bn(b.concat(b.conv(x, 2, **PADDED), b.conv(x, 3)), "mixed")


@_example(1)
def concat_with_the_input(b: Builder) -> None:
    x = b.input(3, 4, 4)
    b.bn(b.concat(b.conv(x, 2, **PADDED), x))


@_example(0)
def concat_with_a_constant(b: Builder) -> None:
    """The constant's channels are rewritten."""
    x = b.conv(b.input(3, 4, 4), 2, **PADDED)
    b.op("rigid", b.bn(b.concat(x, constant=2), "mixed"), kind="Tanh")


@_example(1)
def greedy_trap(b: Builder) -> None:
    """The BatchNorm over the concatenation saves most traffic, but stands in the way of the other two."""
    x = b.input(3, 4, 4)
    f, g = b.conv(x, 3), b.conv(x, 3)
    for y in (b.concat(f, g), f, g):
        b.op("rigid", b.bn(y), kind="Tanh")


@_example(1)
def greedy_trap_in_a_crowd(b: Builder) -> None:
    """The same, tied to a stream with more BatchNorms than an exhaustive search could try."""
    x = b.input(3, 4, 4)
    f, g = b.conv(x, 3), b.conv(x, 3)
    for _ in range(12):
        g = b.op("add", g, b.conv(b.op("relu", b.bn(g))))
    for y in (b.concat(f, g), f, g):
        b.op("rigid", b.bn(y), kind="Tanh")


@_example(0, affines_left=1)
def norm_before_multiplication(b: Builder) -> None:
    """One of two readers can set the unit: the BatchNorm, not the multiplication."""
    x = b.conv(b.input(3, 4, 4))
    b.op("rigid", b.const(x, "mul"), kind="Tanh")
    b.op("rigid", b.bn(x), kind="Tanh")


@_example(0, affines_left=1)
def preprocessing_padded_conv(b: Builder) -> None:
    """(x - mean) / std: the scale folds through the padding, the shift stays in one affine."""
    x = b.const(b.const(b.input(3, 4, 4), "sub"), "div")
    b.op("relu", b.bn(b.conv(x, 4, **PADDED)))


@_example(0, affines_left=0)
def preprocessing_unpadded_conv(b: Builder) -> None:
    x = b.const(b.const(b.input(3, 4, 4), "sub"), "div")
    b.op("relu", b.bn(b.conv(x, 4, **UNPADDED)))


@_example(0, affines_left=0, merged=1)
def layer_scale(b: Builder) -> None:
    x = b.conv(b.input(3, 4, 4), 3)
    b.op("rigid", b.op("add", x, b.const(b.bn(b.conv(x, 3, **PADDED)), "mul", positive=False)), kind="Tanh")


@_example(2)
def densenet(b: Builder) -> None:
    """One feature map read through three BatchNorms: only one of them can set its unit."""
    features = [b.conv(b.input(3, 4, 4), 2, **PADDED)]
    for _ in range(3):
        x = features[0] if len(features) == 1 else b.concat(*features)
        features.append(b.conv(b.op("relu", b.bn(x)), 2, **PADDED))
    _head(b, b.concat(*features))


@_example(0, merged=6)
def repvgg(b: Builder) -> None:
    x = b.op("relu", b.bn(b.conv(b.input(3, 4, 4), 4, **PADDED)))
    for _ in range(2):
        branches = b.op("add", b.bn(b.conv(x, 4, bias=False, **PADDED)), b.bn(b.conv(x, 4, bias=False)))
        x = b.op("relu", b.op("add", branches, b.bn(x)))
    _head(b, x)


@_example(0, merged=3)
def repvgg_behind_a_sigmoid(b: Builder) -> None:
    """Units alone cannot move the BatchNorm of the skip path."""
    x = b.op("rigid", b.input(3, 4, 4), kind="Sigmoid")
    sums = b.op("add", b.bn(b.conv(x, 3, bias=False, **PADDED)), b.bn(x, "mixed"))
    b.op("rigid", b.op("add", b.bn(b.conv(x, 3), "zero"), sums), kind="Tanh")


@_example(0, merged=4)
def mobileone(b: Builder) -> None:
    x = b.op("rigid", b.input(3, 4, 4), kind="Sigmoid")
    y = b.bn(x)
    for kernel in (PADDED, PADDED, {}):
        y = b.op("add", y, b.bn(b.conv(x, 3, bias=False, groups=3, **kernel), "mixed"))
    b.op("relu", y)


@_example(0, merged=1)
def repvit(b: Builder) -> None:
    x = b.op("rigid", b.input(3, 4, 4), kind="Sigmoid")
    y = b.op("add", b.bn(b.conv(x, 3, groups=3, **PADDED)), b.conv(x, 3, groups=3))
    b.op("rigid", b.bn(b.op("add", y, x), "mixed"), kind="Tanh")


@_example(0, affines_left=0, merged=3)
def fastvit(b: Builder) -> None:
    x = b.op("rigid", b.input(3, 4, 4), kind="Sigmoid")
    mixer = b.op("add", b.bn(b.conv(x, 3, groups=3, **PADDED)), b.bn(x))
    scaled = b.const(b.op("sub", mixer, b.bn(x)), "mul", positive=False)
    b.op("rigid", b.op("add", x, scaled), kind="Tanh")


@_example(0, merged=2)
def repghost_beside_a_residual(b: Builder) -> None:
    z = b.op("rigid", b.input(3, 4, 4), kind="Sigmoid")
    x = b.op("relu", b.conv(z, 3))
    y = b.op("add", b.bn(b.conv(x, 3, groups=3, **PADDED)), b.bn(x))
    b.op("rigid", b.op("add", y, z), kind="Tanh")


@_example(0)
def dense_beside_depthwise(b: Builder) -> None:
    """One kernel for both would multiply more, so they stay two."""
    x = b.op("rigid", b.input(8, 4, 4), kind="Sigmoid")
    wide, dense = b.bn(b.conv(x, 8, groups=8, **PADDED)), b.bn(b.conv(x, 8))
    b.op("rigid", b.op("add", wide, dense), kind="Tanh")


@_example(0)
def matmul_add_reshape_bn(b: Builder) -> None:
    x = b.tokens(b.input(3, 3, 3))
    y = b.bn(b.rows(b.const(b.matmul(x, 4), "add")), "mixed")
    b.op("reshape", y, shape=(-1, 9, 4), channel_axis=2)


@_example(0)
def features(b: Builder) -> None:
    x = b.bn(b.op("flatten", b.bn(b.input(3, 3, 3), "mixed")), "mixed")
    b.bn(b.gemm(b.op("relu", b.bn(b.gemm(x, 4, 0.5, 2.0, False))), 3, bias=()), "mixed")


@_example(0)
def identical_branches(b: Builder) -> None:
    x = b.input(3, 4, 4)
    first = b.bn(x, "mixed")
    b.conv(b.op("add", first, b.bn(x, "copy", 0)), 2)


@_example(0)
def branches_of_one_scale(b: Builder) -> None:
    """A sum needs equal scales, not equal shifts."""
    x = b.input(3, 4, 4)
    first = b.bn(x, "mixed")
    b.conv(b.op("sub", first, b.bn(x, "same_scale", 0)), 2)


@_example(1)
def branches_of_two_scales(b: Builder) -> None:
    x = b.input(3, 4, 4)
    b.conv(b.op("add", b.bn(x), b.bn(x)), 2)


@_example(0)
def same_zero(b: Builder) -> None:
    """Two readers whose ReLUs bend at the same value: one shift serves both, the scales pass."""
    x = b.conv(b.input(3, 4, 4), 3)
    y = b.conv(b.op("relu", b.bn(x)), 2, **PADDED)
    z = b.conv(b.op("relu", b.bn(x, "same_zero", 1)), 2, **PADDED)
    b.op("add", y, z)


@_example(1)
def scales_in_a_row(b: Builder) -> None:
    """Two pure scales between rigid ends: they meet in one."""
    b.op("rigid", b.bn(b.op("relu", b.bn(b.input(3, 4, 4), "scale_only")), "scale_only"), kind="Tanh")


@_example(0)
def inverse_pair(b: Builder) -> None:
    x = b.bn(b.op("max_pool", b.bn(b.input(3, 4, 4)), kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0)), "inverse", 0)
    b.op("rigid", x, kind="Softmax")


@_example(1)
def negative_into_max_pool(b: Builder) -> None:
    b.conv(b.pool(b.bn(b.input(3, 4, 4), "negative")), 2)


@_example(0)
def conv_negative_max_pool(b: Builder) -> None:
    b.conv(b.pool(b.bn(b.conv(b.input(3, 4, 4)), "negative")), 2)


@_example(1)
def average_of_zeros(b: Builder) -> None:
    x = b.bn(b.input(3, 4, 4))
    b.conv(b.pool(x, "average_pool", (3, 3), (1, 1, 1, 1), count_include_pad=True), 2)


@_example(0)
def average_without_zeros(b: Builder) -> None:
    x = b.bn(b.input(3, 4, 4), "mixed")
    b.conv(b.pool(x, "average_pool", (3, 3), (1, 1, 1, 1)), 2)


@_example(1)
def constant_pad(b: Builder) -> None:
    b.conv(b.op("pad", b.bn(b.input(3, 4, 4)), pads=(1, 1, 1, 1), mode="constant"), 2)


@_example(0)
def edge_pad(b: Builder) -> None:
    b.conv(b.op("pad", b.bn(b.input(3, 4, 4)), pads=(1, 1, 1, 1), mode="edge"), 2)


@_example(0)
def squeeze_excite(b: Builder) -> None:
    x = b.bn(b.conv(b.input(3, 4, 4)), "mixed")
    gate = b.op("rigid", b.conv(b.op("relu", b.bn(b.conv(b.op("global_average_pool", x))))), kind="Sigmoid")
    b.bn(b.conv(b.op("gate", x, gate), **PADDED), "mixed")


@_example(1)
def gate_output_shift(b: Builder) -> None:
    """Behind a gate the shift is 0: a scale passes to the conv before it, a shift does not."""
    x = b.conv(b.input(3, 4, 4))
    gate = b.op("rigid", b.conv(x), kind="Sigmoid")
    b.op("rigid", b.bn(b.op("gate", x, gate)), kind="Tanh")


@_example(0)
def position_embedding(b: Builder) -> None:
    """Between a ReLU and a padding of zeros, the table takes the shift that both refuse."""
    b.conv(b.bn(b.table(b.op("relu", b.conv(b.input(3, 4, 4))))), 2, **PADDED)


@_example(0)
def split_and_shuffle(b: Builder) -> None:
    x = b.op("gather", b.bn(b.conv(b.input(3, 4, 4), 4), "mixed"), indices=(2, 0, 3, 1))
    left, right = b.split(x, (1, 3))
    b.op("rigid", left, kind="Tanh")
    b.op("relu", b.bn(right, "scale_only"))


@_example(0, dead=True)
def zero_gamma_behind_conv(b: Builder) -> None:
    """Nothing divides by the zero: the conv's filter becomes zero."""
    b.bn(b.conv(b.input(3, 4, 4), 4, **PADDED), "zero")


@_example(0, dead=True)
def zero_gamma_behind_layer_scale(b: Builder) -> None:
    """The zero passes through an affine that vanishes as well."""
    b.bn(b.const(b.conv(b.input(3, 4, 4), 4, bias=False), "mul"), "zero")


@_example(0, dead=True)
def zero_gamma_behind_norm(b: Builder) -> None:
    """The same through a BatchNorm."""
    b.bn(b.bn(b.conv(b.input(3, 4, 4), 4, bias=False)), "zero")


@_example(0, dead=True)
def zero_gamma_before_unpadded_conv(b: Builder) -> None:
    """Nothing divides by the zero: the conv's column becomes zero, the constant goes into its bias."""
    b.conv(b.bn(b.input(4, 4, 4), "zero"), 2, **UNPADDED)


@_example(2, dead=True)
def zero_gamma_on_a_sum(b: Builder) -> None:
    """The sum's other reader needs the channel that the BatchNorm forgets, so its scale would have to be inverted."""
    x = b.conv(b.input(3, 4, 4), 3)
    b.op("rigid", b.bn(x, "zero"), kind="Tanh")
    b.op("rigid", b.bn(x), kind="Tanh")
    b.op("relu", x)


def _stream(b: Builder, kind: str, **window: Any) -> None:
    x = b.conv(b.input(3, 5, 5), 4, **PADDED)
    for _ in range(2):
        x = b.op("add", x, b.conv(b.op("relu", b.bn(x, kind)), 4, **window))
    _head(b, b.op("relu", b.bn(x)))


@_example(0, dead=True)
def dead_channel(b: Builder) -> None:
    """Zero gamma and t < 0 before a ReLU: the channel is zero whatever its unit."""
    _stream(b, "dead", **PADDED)


@_example(2, dead=True)
def stuck_channel(b: Builder) -> None:
    """Zero gamma and t > 0 before a ReLU and a padded conv: a constant that the padding does not let through."""
    _stream(b, "stuck", **PADDED)


@_example(0, dead=True)
def constant_channel(b: Builder) -> None:
    """The same before a conv without padding, whose bias takes the constant."""
    _stream(b, "stuck")


@_example(0, dead=True)
def constant_channel_twice(b: Builder) -> None:
    """Through a second BatchNorm, behind which it is another constant."""
    x = b.conv(b.input(3, 5, 5), 4)
    y = b.bn(b.op("relu", b.bn(x, "stuck")))
    _head(b, b.op("add", x, b.conv(y, 4)))


@_example(1, dead=True)
def ill_conditioned(b: Builder) -> None:
    """A gamma of 1e-8 beside a beta of 0.5 would put a shift of 5e7 standard deviations on the stream."""
    x = b.conv(b.input(3, 4, 4))
    x = b.op("add", x, b.conv(b.op("relu", b.bn(x, "tiny")), 3, **PADDED))
    _head(b, b.op("relu", b.bn(x)))
