"""Branch merges on ONNX models: what becomes one operator, and what must stay as it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_case import Case, Folded, check, fold, same_function

FIXED = ({},)


def multiplies(proto: onnx.ModelProto) -> int:
    """Stored weights of the linear operators: multiplications per output position, where all have equally many."""
    sizes = {t.name: math.prod(t.dims) for t in proto.graph.initializer}
    linear = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return sum(max(sizes.get(name, 0) for name in node.input[:2]) for node in linear)


def merged(c: Case, *outputs: str, ops: list[str], **options: Any) -> Folded:
    """Every BatchNorm goes, these operators are left, and no more is multiplied than before."""
    folded = check(c.model(*outputs), **options)
    assert folded.ops() == ops, folded.ops()
    assert multiplies(folded.after) <= multiplies(folded.before)
    convs = [{n.name for n in m.graph.node if n.op_type == "Conv"} for m in (folded.after, folded.before)]
    assert convs[0] <= convs[1]
    return folded


def unmerged(c: Case, *outputs: str, kept: tuple[str, ...] = (), **options: Any) -> Folded:
    """The sums stay, and no BatchNorm is merged."""
    folded = check(c.model(*outputs), *kept, **options)
    assert folded.plan.merged == 0
    sums = [sum(n.op_type in ("Add", "Sub", "Sum") for n in m.graph.node) for m in (folded.before, folded.after)]
    assert sums[0] == sums[1]
    return folded


def start(c: Case, *shape: int | str) -> str:
    return c.op("Relu", c.input("N", *(shape or (4, "H", "W"))))


# The architectures of the literature, by their shape


@pytest.mark.parametrize("group", [1, 2, 4])
def test_repvgg(group: int) -> None:
    c = Case()
    x = start(c)
    big = c.bn(c.conv(x, 4, 4 // group, 3, 3, bias=False, group=group, pads=[1, 1, 1, 1], label="big"), 4)
    small = c.bn(c.conv(x, 4, 4 // group, 1, 1, bias=False, group=group), 4)
    y = c.op("Relu", c.op("Add", c.op("Add", big, small), c.bn(x, 4)))
    folded = merged(c, y, ops=["Relu", "Conv", "Relu"])
    assert [(s.status, s.into) for s in folded.plan.sites] == [("merged", ("big",))] * 3
    assert multiplies(folded.after) == 4 * 4 // group * 9


def test_repvgg_that_halves_the_image() -> None:
    c = Case()
    x = start(c)
    big = c.bn(c.conv(x, 8, 4, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2]), 8)
    small = c.bn(c.conv(x, 8, 4, 1, 1, strides=[2, 2]), 8)
    merged(c, c.op("Relu", c.op("Add", big, small)), ops=["Relu", "Conv", "Relu"])


@pytest.mark.parametrize("group", [1, 4])
def test_mobileone(group: int) -> None:
    c = Case()
    x = start(c)
    size = 1 if group == 1 else 3
    y = c.bn(x, 4)
    for _ in range(4):
        branch = c.conv(x, 4, 4 // group, size, size, bias=False, group=group, pads=[size // 2] * 4)
        y = c.op("Add", y, c.bn(branch, 4, gamma=c.mixed(4)))
    y = c.op("Add", y, c.bn(c.conv(x, 4, 4 // group, 1, 1, group=group), 4))
    folded = merged(c, c.op("Relu", y), ops=["Relu", "Conv", "Relu"])
    assert folded.plan.merged == 6


def test_repvit() -> None:
    c = Case()
    x = start(c)
    y = c.bn(c.conv(x, 4, 1, 3, 3, group=4, pads=[1] * 4, label="big"), 4)
    y = c.bn(c.op("Add", c.op("Add", y, c.conv(x, 4, 1, 1, 1, group=4)), x), 4)
    folded = merged(c, c.op("Gelu" if c.opset > 19 else "Sigmoid", y), ops=["Relu", "Conv", "Sigmoid"])
    assert [(s.status, s.into) for s in folded.plan.sites] == [("merged", ("big",)), ("folded", ("big",))]


def test_fastvit() -> None:
    c = Case()
    x = start(c)
    mixer = c.op("Add", c.bn(c.conv(x, 4, 1, 1, 1, group=4), 4), c.bn(x, 4))
    mixer = c.op("Add", mixer, c.bn(c.conv(x, 4, 1, 3, 3, group=4, pads=[1] * 4), 4))
    norm = c.op("Add", c.bn(x, 4), c.const(np.array(0.0)))
    scaled = c.op("Mul", c.op("Sub", mixer, norm), c.draw(4, 1, 1))
    folded = merged(c, c.op("Sigmoid", c.op("Add", x, scaled)), ops=["Relu", "Conv", "Sigmoid"])
    assert folded.plan.merged == 4
    assert {s.status for s in folded.plan.affines} == {"merged"}


def test_repghost_beside_a_residual() -> None:
    """`dw(x) + bn(x)` merge, the other operand is added to them."""
    c = Case()
    z = start(c)
    x = c.op("Relu", c.conv(z, 4, 4, 1, 1))
    sum_of_two = c.op("Add", c.bn(c.conv(x, 4, 1, 3, 3, group=4, pads=[1] * 4), 4), c.bn(x, 4))
    y = c.op("Add", sum_of_two, z, label="residual")
    folded = merged(c, c.op("Relu", y), ops=["Relu", "Conv", "Relu", "Conv", "Add", "Relu"])
    assert "residual" in [node.name for node in folded.after.graph.node]


def test_operands_that_stay_keep_their_signs() -> None:
    c = Case()
    x = start(c)
    y = c.op("Sub", c.op("Sigmoid", x), c.conv(x, 4, 4, 3, 3, pads=[1] * 4))
    y = c.op("Sub", c.op("Sub", y, c.op("Tanh", x)), c.bn(c.conv(x, 4, 4, 1, 1), 4))
    merged(c, c.op("Relu", y), ops=["Relu", "Sigmoid", "Tanh", "Conv", "Add", "Sub", "Relu"])


def test_two_heads_of_a_classifier() -> None:
    c = Case()
    x = c.op("Relu", c.input("N", 4))
    heads = [c.op("Gemm", c.bn(x, 4), c.draw(6, 4), c.draw(6), transB=1) for _ in range(2)]
    y = c.op("Div", c.op("Add", *heads), c.const(np.array(2.0)))
    merged(c, y, ops=["Relu", "Gemm"])


# Every part of a branch


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "kind", ["plain", "asymmetric", "dilated", "strided", "grouped", "depthwise", "transposed order"]
)
def test_kinds_of_convolution(dims: int, kind: str) -> None:
    c = Case()
    space = ("H", "W", 5)[:dims]
    x = start(c, 4, *space)
    group = {"grouped": 2, "depthwise": 4}.get(kind, 1)
    stride = 2 if kind == "strided" else 1
    begin, end = {"asymmetric": (0, 2), "dilated": (2, 2)}.get(kind, (1, 1))
    spread = 2 if kind == "dilated" else 1
    first = c.conv(
        x, 4, 4 // group, *[3] * dims, group=group, pads=[begin] * dims + [end] * dims, strides=[stride] * dims,
        dilations=[spread] * dims,
    )  # fmt: skip
    second = c.conv(x, 4, 4 // group, *[1] * dims, group=group, strides=[stride] * dims)
    y = c.op("Add", *([second, first] if kind == "transposed order" else [first, second]))
    folded = merged(c, c.op("Relu", c.bn(y, 4)), ops=["Relu", "Conv", "Relu"], sizes=SMALL)
    assert multiplies(folded.after) == 4 * 4 // group * 3**dims


SMALL = ({"N": 2, "H": 6, "W": 6}, {"N": 1, "H": 7, "W": 6})


def test_a_gap_stays_a_gap() -> None:
    c = Case()
    x = start(c)
    y = c.op("Add", c.conv(x, 4, 4, 3, 3, pads=[2] * 4, dilations=[2, 2]), c.conv(x, 4, 4, 1, 1))
    folded = merged(c, c.op("Relu", y), ops=["Relu", "Conv", "Relu"])
    (conv,) = (node for node in folded.after.graph.node if node.op_type == "Conv")
    assert {a.name: list(a.ints) for a in conv.attribute}["dilations"] == [2, 2]


@pytest.mark.parametrize("pads", [None, "counted"])
def test_average_pooling_is_a_branch(pads: str | None) -> None:
    c = Case()
    x = start(c)
    settings = {"pads": [1] * 4, "count_include_pad": 1} if pads else {}
    pooled = c.op("AveragePool", x, kernel_shape=[3, 3], **settings)
    y = c.op("Sub", c.conv(x, 4, 4, 3, 3, pads=[1] * 4 if pads else [0] * 4), c.bn(pooled, 4))
    merged(c, c.op("Relu", y), ops=["Relu", "Conv", "Relu"])


@pytest.mark.parametrize("settings", [{"pads": [1] * 4}, {"ceil_mode": 1, "count_include_pad": 1, "pads": [1] * 4}])
def test_an_average_that_is_no_convolution_is_none(settings: dict[str, Any]) -> None:
    c = Case()
    x = start(c)
    pooled = c.op("AveragePool", x, kernel_shape=[3, 3], **settings)
    unmerged(c, c.op("Relu", c.op("Add", c.conv(x, 4, 4, 3, 3, pads=[1] * 4), pooled)))


def test_a_sum_of_many_and_copies_of_values() -> None:
    c = Case()
    x = start(c)
    kept = c.op("Identity", c.bn(c.conv(x, 4, 4, 1, 1), 4))
    y = c.op("Sum", c.conv(x, 4, 4, 3, 3, pads=[1] * 4), kept, c.op("Sigmoid", x), x)
    merged(c, c.op("Relu", y), ops=["Relu", "Sigmoid", "Conv", "Add", "Relu"])


def test_affines_on_both_sides_of_an_unpadded_convolution() -> None:
    c = Case()
    x = start(c)
    a = c.op("Mul", c.bn(c.conv(c.bn(x, 4, gamma=c.mixed(4)), 4, 4, 1, 1), 4), c.draw(4, 1, 1))
    b = c.op("Add", c.op("Neg", c.conv(c.op("Div", x, c.const(np.array(3.0))), 4, 4, 1, 1)), c.draw(1, 4, 1, 1))
    folded = merged(c, c.op("Relu", c.op("Sub", a, b)), ops=["Relu", "Conv", "Relu"])
    assert folded.plan.merged == 2


@pytest.mark.parametrize("left", [False, True])
def test_matrix_products_with_and_without_bias(left: bool) -> None:
    c = Case()
    x = c.op("Relu", c.input("N", 3, 4))
    size = 3 if left else 4
    weights = [c.draw(size, size), c.draw(size, size)]
    first, second = (c.op("MatMul", *([w, x] if left else [x, w])) for w in weights)
    shift = c.op("Add", second, c.draw(*((3, 1) if left else (4,))))
    y = c.op("Add", c.op("Add", first, shift), x)
    merged(c, c.op("Relu", y), ops=["Relu", "MatMul", "Add", "Relu"])


def test_matrix_products_without_any_bias_stay_without() -> None:
    c = Case()
    x = c.op("Relu", c.input("N", 3, 4))
    y = c.op("Sub", c.op("MatMul", x, c.draw(4, 4)), c.op("MatMul", x, c.draw(4, 4)))
    merged(c, c.op("Relu", y), ops=["Relu", "MatMul", "Relu"])


def test_gemms_of_every_layout() -> None:
    c = Case()
    x = c.op("Relu", c.input(4, 4))
    a = c.op("Gemm", x, c.draw(4, 6), c.draw(1, 6), alpha=0.5, beta=-2.0)
    b = c.op("Gemm", x, c.draw(6, 4), transB=1, alpha=3.0)
    d = c.op("MatMul", x, c.draw(4, 6))
    merged(c, c.op("Relu", c.op("Add", c.op("Sub", a, b), d)), ops=["Relu", "Gemm", "Relu"])


def test_a_pad_of_its_own_is_the_convolution_s() -> None:
    """What the fold tidies up last may be branches only then."""
    c = Case()
    x = start(c)
    padded = c.op("Pad", x, c.ints(0, 0, 1, 1, 0, 0, 1, 1))
    y = c.op("Add", c.bn(c.conv(padded, 4, 4, 3, 3), 4), c.bn(c.conv(x, 4, 4, 1, 1), 4))
    merged(c, c.op("Relu", y), ops=["Relu", "Conv", "Relu"])


def test_what_a_fold_frees_is_merged() -> None:
    """The BatchNorm before the padded convolution goes into the stream; then the branches read one tensor."""
    c = Case()
    x = c.conv(c.input("N", 3, "H", "W"), 4, 3, 1, 1)
    y = c.conv(c.bn(x, 4), 4, 4, 3, 3, pads=[1] * 4)
    folded = merged(c, c.op("Relu", c.op("Add", y, x)), ops=["Conv", "Conv", "Relu"])
    assert folded.plan.folded == 1


# What stays


def refusals() -> list[Any]:
    def other_reader(c: Case, x: str) -> tuple[str, ...]:
        a = c.conv(x, 4, 4, 3, 3, pads=[1] * 4)
        return c.op("Add", a, c.conv(x, 4, 4, 1, 1)), c.op("Sigmoid", a)

    def output(c: Case, x: str) -> tuple[str, ...]:
        a = c.conv(x, 4, 4, 3, 3, pads=[1] * 4)
        return c.op("Add", a, c.conv(x, 4, 4, 1, 1)), a

    def sparse(c: Case, x: str) -> tuple[str, ...]:
        """Taps at both ends of a long box."""
        a = c.conv(x, 4, 4, 1, 2, pads=[0, 4, 0, 0], dilations=[1, 4])
        return (c.op("Add", a, c.conv(x, 4, 4, 1, 2, pads=[0, 1, 0, 0])),)

    def cross(c: Case, x: str) -> tuple[str, ...]:
        a = c.conv(x, 4, 4, 1, 3, pads=[0, 1, 0, 1])
        return (c.op("Add", a, c.conv(x, 4, 4, 3, 1, pads=[1, 0, 1, 0])),)

    def dense_and_depthwise(c: Case, x: str) -> tuple[str, ...]:
        return (c.op("Add", c.conv(x, 4, 4, 1, 1), c.conv(x, 4, 1, 3, 3, group=4, pads=[1] * 4)),)

    def depthwise_and_pooled(c: Case, x: str) -> tuple[str, ...]:
        pooled = c.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
        return (c.op("Sub", pooled, x),)

    def two_tensors(c: Case, x: str) -> tuple[str, ...]:
        return (c.op("Add", c.conv(x, 4, 4, 1, 1), c.conv(c.op("Sigmoid", x), 4, 4, 1, 1)),)

    def sizes(c: Case, x: str) -> tuple[str, ...]:
        """A kernel as large as the image: its one row is broadcast."""
        return (c.op("Add", c.conv(x, 4, 4, 6, 1), c.conv(x, 4, 4, 1, 1)),)

    def bends(c: Case, x: str) -> tuple[str, ...]:
        return (c.op("Add", c.op("Relu", c.conv(x, 4, 4, 1, 1)), c.conv(x, 4, 4, 1, 1)),)

    def unknown_padding(c: Case, x: str) -> tuple[str, ...]:
        settings: dict[str, Any] = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
        return (c.op("Add", c.conv(x, 4, 4, 3, 3, **settings), c.conv(x, 4, 4, 3, 3, **settings)),)

    cases = [
        other_reader, output, sparse, cross, dense_and_depthwise, depthwise_and_pooled, two_tensors, bends,
        unknown_padding, sizes,
    ]  # fmt: skip
    return [pytest.param(case, id=case.__name__) for case in cases]


@pytest.mark.parametrize("case", refusals())
def test_refused(case: Any) -> None:
    c = Case()
    y, *others = case(c, start(c, 4, 6, "W") if case.__name__ == "sizes" else start(c))
    folded = unmerged(c, c.op("Relu", y), *others)
    assert multiplies(folded.after) == multiplies(folded.before)


def test_a_shift_before_padding_stays_outside() -> None:
    c = Case()
    x = start(c)
    y = c.op("Add", c.conv(c.bn(x, 4), 4, 4, 3, 3, pads=[1] * 4), c.conv(x, 4, 4, 3, 3, pads=[1] * 4))
    unmerged(c, c.op("Relu", y), kept=("ZERO-PAD",))


def test_training_mode_is_no_branch() -> None:
    c = Case()
    x = start(c)
    n = c.op("BatchNormalization", c.conv(x, 4, 4, 1, 1), *c.bn_params(4), training_mode=1, outputs=["n", "m", "v"])[0]
    folded = fold(c.model(c.op("Relu", c.op("Add", n, c.conv(x, 4, 4, 1, 1)))))
    assert (folded.plan.merged, folded.plan.kept) == (0, 1)


def test_weights_that_callers_may_change_are_no_branch() -> None:
    c = Case()
    x = start(c)
    weight = c.draw(4, 4, 1, 1, name="given")
    c.inputs.append(onnx.helper.make_tensor_value_info("given", onnx.TensorProto.DOUBLE, [4, 4, 1, 1]))
    y = c.op("Add", c.op("Conv", x, weight), c.bn(c.conv(x, 4, 4, 1, 1), 4))
    folded = fold(c.model(c.op("Relu", y)))
    assert (folded.plan.merged, folded.plan.folded) == (0, 1)


def test_a_shared_weight_stays_for_its_other_reader() -> None:
    c = Case()
    x = start(c)
    weight = c.draw(4, 4, 1, 1, name="shared")
    y = c.op("Add", c.op("Conv", x, weight), c.bn(x, 4))
    z = c.op("Sigmoid", c.op("Conv", c.op("Sigmoid", x), weight))
    folded = merged(c, c.op("Relu", y), z, ops=["Relu", "Conv", "Sigmoid", "Conv", "Sigmoid", "Relu"])
    before = next(numpy_helper.to_array(t) for t in folded.before.graph.initializer if t.name == "shared")
    np.testing.assert_array_equal(folded.initializer("shared"), before)


def test_a_block_that_is_called_twice_is_stored_once() -> None:
    c = Case()
    y = start(c)
    big, small = c.draw(4, 4, 3, 3), c.draw(4, 4, 1, 1)
    for _ in range(2):
        y = c.op("Relu", c.op("Add", c.op("Conv", y, big, pads=[1] * 4), c.op("Conv", y, small)))
    folded = merged(c, y, ops=["Relu", "Conv", "Relu", "Conv", "Relu"])
    assert len(folded.after.graph.initializer) == 1


@pytest.mark.parametrize(("factor", "merges"), [(1.0, 1), (6e4, 0)])
def test_half_precision_merges_unless_it_overflows(factor: float, merges: int) -> None:
    c = Case(dtype=np.float16)
    x = start(c)
    first, second = (c.const(np.full((4, 4, 1, 1), value)) for value in (factor, factor / 2))
    y = c.op("Add", c.op("Conv", x, first), c.op("Conv", x, second))
    folded = fold(c.model(c.op("Relu", y)))
    assert folded.ops().count("Conv") == 2 - merges
    same_function(folded, values={"x": np.zeros((2, 4, 6, 6))} if not merges else None)


def test_names_and_order_of_outputs_stay() -> None:
    c = Case()
    x = start(c)
    first = c.op("Add", c.conv(x, 4, 4, 3, 3, pads=[1] * 4, label="kept"), c.bn(x, 4), outputs=["first"])
    second = c.op("Add", first, c.bn(c.conv(first, 4, 4, 1, 1, label="other"), 4), outputs=["second"])
    folded = merged(c, second, first, ops=["Relu", "Conv", "Conv"])
    assert [node.name for node in folded.after.graph.node][1:] == ["kept", "other"]
    assert [node.output[0] for node in folded.after.graph.node][1:] == ["first", "second"]


def test_branches_in_a_body_of_control_flow() -> None:
    c = Case()
    x = start(c, 4, 6, 6)
    first = len(c.nodes)
    y = c.op("Add", c.bn(c.conv(x, 4, 4, 3, 3, pads=[1] * 4), 4), c.bn(x, 4))
    then = c.body("then", [c.op("Relu", y)], first=first)
    other = c.body("else", [c.op("Sigmoid", x)], first=first)
    flag = c.input(name="flag", dtype=np.bool_)
    z = c.op("If", flag, then_branch=then, else_branch=other)
    folded = fold(c.model(z, shapes={z: ("N", 4, 6, 6)}))
    assert folded.plan.merged == 2
    same_function(folded, sizes=({"N": 2},), values={"flag": np.array(True)})


def test_sums_of_old_operator_sets_are_left_alone() -> None:
    c = Case(opset=6)
    x = start(c)
    y = c.op("Add", c.conv(x, 4, 4, 3, 3, pads=[1] * 4), c.conv(x, 4, 4, 1, 1))
    folded = fold(c.model(c.op("Relu", c.bn(y, 4, is_test=1))), check=False)
    assert folded.ops().count("Add") == 1


def test_operators_that_a_fold_made_are_read_again() -> None:
    """A Mul is made for a BatchNorm's scale, and a Pad moves into its Conv, after which the graph is read once more."""
    c = Case()
    x = start(c)
    y = c.op("Mul", c.bn(x, 4), c.draw(4, 1, 1))
    z = c.conv(c.op("Pad", c.op("Sigmoid", x), c.ints(0, 0, 1, 1, 0, 0, 1, 1)), 4, 4, 3, 3)
    folded = fold(c.model(y, z))
    assert "Pad" not in folded.ops()
    same_function(folded)
