"""Each kind of operator: what passes, what does not, and that the rewritten graph computes the same.

A BatchNorm behind an operator behind a convolution vanishes if its map passes the operator, and stays for a reason if
it does not. A law that is too strict keeps one that should go; one that is too generous changes the result, or drops a
reason.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from handmade import Net, frozen, torch_of
from hypothesis import given, settings
from hypothesis import strategies as st
from meaning import check_exact, check_units

from bnfold.reasons import Reason
from bnfold.units.graph import Affine, Graph, Linear, Op, Recurrent, Rigid, Table
from bnfold.units.laws import read_laws, shift_passes
from bnfold.units.solver import solve

UP, DOWN, MOVE = [2.0, 0.5, 3.0, 1.5], [2.0, -0.5, 3.0, -1.5], [1.0, -2.0, 0.5, 3.0]
SAME, STILL = [1.0] * 4, [0.0] * 4


def fate(net: Net, name: str) -> Reason | None:
    """Why an affine stays, None where it goes; after a check that the rewritten graph computes the same."""
    solution = solve(read_laws(net.graph()))
    check_exact(net, solution)
    check_units(net, solution)
    assert (name in solution.removed) != (name in solution.refused)
    return solution.refused.get(name)


def behind(operator: Callable[[Net, str], str], scale: object, shift: object) -> Reason | None:
    """Conv → operator → BatchNorm → something rigid."""
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 4)
    y = net.bn(operator(net, x), scale, shift, name="norm")
    return fate(net.output(net.tanh(y)), "norm")


def before(operator: Callable[[Net, str], str], scale: object, shift: object) -> Reason | None:
    """An input → BatchNorm → operator."""
    net = Net()
    x = net.bn(net.input(2, 4, 4, 4), scale, shift, name="norm")
    return fate(net.output(operator(net, x)), "norm")


# What passes an operator on its way to the convolution before it: a positive scale, a negative one, a shift. Where both
# sides of the BatchNorm are walls, the reason is the same for a scale and for a shift.

PASSING: dict[str, tuple[Callable[[Net, str], str], Reason | None, Reason | None, Reason | None]] = {
    "nothing": (lambda n, x: x, None, None, None),
    "average": (lambda n, x: n.average(x), None, None, None),
    "average that leaves its zeros out": (lambda n, x: n.average(x, 2, 1), None, None, None),
    "average that counts its zeros": (lambda n, x: n.average(x, 2, 1, counted=True), None, None, Reason.ZERO_PAD),
    "max pool": (lambda n, x: n.max_pool(x), None, Reason.NEGATIVE_GAMMA, None),
    "relu": (lambda n, x: n.relu(x), None, Reason.NEGATIVE_GAMMA, Reason.NONLINEAR),
    "leaky relu": (lambda n, x: n.leaky(x), None, Reason.NEGATIVE_GAMMA, Reason.NONLINEAR),
    "sigmoid": (lambda n, x: n.tanh(x), Reason.NONLINEAR, Reason.NONLINEAR, Reason.NONLINEAR),
    "unknown operator": (
        lambda n, x: n.tanh(x, Reason.BOUNDARY), Reason.BOUNDARY, Reason.BOUNDARY, Reason.BOUNDARY
    ),
    "gate": (lambda n, x: n.gate(x, n.tanh(n.mean_gate(x))), None, None, Reason.NONLINEAR),
    "division by a gate": (lambda n, x: n.gate(x, n.tanh(n.mean_gate(x)), True), None, None, Reason.NONLINEAR),
    "square": (lambda n, x: n.gate(x, x), Reason.NONLINEAR, Reason.NONLINEAR, Reason.NONLINEAR),
    "zeros around": (lambda n, x: n.zero_pad(x, (0, 0, 1, 0), (0, 0, 0, 1)), None, None, Reason.ZERO_PAD),
    "max with a constant": (
        lambda n, x: n.maximum(x, constants=[n.random(1, 4, 1, 1)]), None, Reason.NEGATIVE_GAMMA, None
    ),
    "max with another conv": (
        lambda n, x: n.maximum(x, n.conv(n.inputs[0], 4)), None, Reason.NEGATIVE_GAMMA, None
    ),
    "max with an input": (
        lambda n, x: n.maximum(x, n.input(2, 4, 4, 4)), Reason.IO, Reason.IO, Reason.IO
    ),
    "sum with another conv": (lambda n, x: n.add(x, n.conv(n.inputs[0], 4)), None, None, None),
    "difference of convs": (lambda n, x: n.add(x, n.conv(n.inputs[0], 4), -1.0), None, None, None),
    "sum with an input": (lambda n, x: n.add(x, n.input(2, 4, 4, 4)), Reason.IO, Reason.IO, None),
    "sum with one channel for all": (
        lambda n, x: n.add(x, n.conv(n.inputs[0], 1)), Reason.SHARED_UNIT, Reason.SHARED_UNIT, None
    ),
    "channel shuffle": (
        lambda n, x: n.reshape(n.transpose(n.reshape(x, 2, 2, 2, 4, 4), 0, 2, 1, 3, 4), 2, 4, 4, 4), None, None, None
    ),
    "chosen channels": (lambda n, x: n.take(n.conv(n.inputs[0], 6), (5, 0, 2, 2 + 1)), None, None, None),
    "concat of convs": (lambda n, x: n.concat(n.conv(n.inputs[0], 1), n.conv(n.inputs[0], 3)), None, None, None),
    "concat with a constant": (
        lambda n, x: n.concat(n.conv(n.inputs[0], 3), n.random(2, 1, 4, 4)), None, None, None
    ),
    "concat with an input": (
        lambda n, x: n.concat(n.conv(n.inputs[0], 1), n.inputs[0]), Reason.IO, Reason.IO, Reason.IO
    ),
    "concat along the height": (
        lambda n, x: n.concat(x, n.conv(n.inputs[0], 4), axis=2), None, None, None
    ),
    "concat along the height with a constant": (
        lambda n, x: n.concat(x, n.random(2, 4, 1, 4), axis=2), None, None, None
    ),
    "concat along the height with an input": (
        lambda n, x: n.concat(x, n.input(2, 4, 1, 4), axis=2), Reason.IO, Reason.IO, Reason.IO
    ),
    "channels of a rearranged image": (
        lambda n, x: n.reshape(n.conv(n.inputs[0], 6), 2, 4, 6, 4),
        Reason.SHARED_UNIT, Reason.SHARED_UNIT, Reason.NONLINEAR,
    ),
    "broadcast": (lambda n, x: n.expand(n.average(x, 4), 2, 4, 3, 3), None, None, None),
    "token mixing": (lambda n, x: n.linear(x, 5, axis=3, bias=False), None, None, Reason.ZERO_PAD),
    "attention": (
        lambda n, x: n.mix(n.softmax(n.input(2, 4, 3, 4)), x, softmax=True), None, None, None
    ),
    "positions mixed by anything": (
        lambda n, x: n.mix(n.input(2, 4, 3, 4), x), None, None, Reason.NONLINEAR
    ),
    "positions mixed from the right": (
        lambda n, x: n.mix(x, n.input(2, 4, 4, 3)), None, None, Reason.NONLINEAR
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSING)
def test_a_positive_scale(name: str) -> None:
    assert behind(PASSING[name][0], UP, STILL) is PASSING[name][1]


@pytest.mark.parametrize("name", PASSING)
def test_a_negative_scale(name: str) -> None:
    assert behind(PASSING[name][0], DOWN, STILL) is PASSING[name][2]


@pytest.mark.parametrize("name", PASSING)
def test_a_shift(name: str) -> None:
    assert behind(PASSING[name][0], SAME, MOVE) is PASSING[name][3]


# What a convolution behind a BatchNorm takes up

READING: dict[str, tuple[Callable[[Net, str], str], Reason | None]] = {
    "pointwise": (lambda n, x: n.conv(x, 3), None),
    "no padding, stride 2": (lambda n, x: n.conv(x, 3, 2, stride=2), None),
    "no padding, dilation 3": (lambda n, x: n.conv(x, 3, 2, dilation=3), None),
    "depthwise": (lambda n, x: n.conv(x, 4, 3, groups=4), None),
    "grouped": (lambda n, x: n.conv(x, 6, 3, groups=2), None),
    "padded": (lambda n, x: n.conv(x, 3, 3, 1), Reason.ZERO_PAD),
    "padded, grouped": (lambda n, x: n.conv(x, 4, 3, 1, groups=4), Reason.ZERO_PAD),
    "padded to one position": (lambda n, x: n.conv(x, 3, 6, 1), None),
    "transposed, pointwise": (lambda n, x: n.conv(x, 4, 1, groups=2, transposed=True), None),
    "transposed, kernel is stride": (lambda n, x: n.conv(x, 4, 2, stride=2, transposed=True), Reason.ZERO_PAD),
    "transposed, even taps, cropped": (
        lambda n, x: n.conv(x, 4, 2, 1, stride=2, transposed=True, weight=frozen(np.ones((4, 4, 2, 2)))), None
    ),
    "transposed, border": (lambda n, x: n.conv(x, 4, 3, transposed=True), Reason.ZERO_PAD),
    "transposed, border cropped": (lambda n, x: n.conv(x, 4, 3, 2, transposed=True, groups=2), None),
    "transposed, output padding": (
        lambda n, x: n.conv(x, 4, 1, stride=2, output_padding=1, transposed=True), Reason.ZERO_PAD
    ),
    "gemm": (lambda n, x: n.linear(n.reshape(x, 2, 64), 3, gain=0.5), None),
    "gemm transposed": (lambda n, x: n.linear(n.reshape(x, 2, 64), 3, flipped=True), None),
    "matmul on the last axis": (lambda n, x: n.linear(n.transpose(x, 0, 2, 3, 1), 3, bias=False), None),
    "padded, weights of each channel sum to zero at every border": (
        lambda n, x: n.conv(x, 2, 3, 1, weight=frozen(np.zeros((2, 4, 3, 3)))), None
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READING)
def test_a_shift_before_a_linear_operator(name: str) -> None:
    assert before(READING[name][0], SAME, MOVE) is READING[name][1]


@pytest.mark.parametrize("name", READING)
def test_any_scale_passes_into_a_linear_operator(name: str) -> None:
    assert before(READING[name][0], DOWN, STILL) is None


def test_a_shift_of_zero_passes_a_padding() -> None:
    assert before(lambda n, x: n.conv(x, 3, 3, 1), DOWN, STILL) is None


def test_only_the_channels_whose_response_varies_are_pinned() -> None:
    """Channel 1 of the kernel reads its middle tap only, so no padding is ever seen by it."""
    weight = np.random.default_rng(0).standard_normal((2, 4, 3, 3))
    weight[:, 1] = 0
    weight[:, 1, 1, 1] = 1
    held = frozen(weight)
    conv = lambda n, x: n.conv(x, 2, 3, 1, weight=held)  # noqa: E731
    assert before(conv, SAME, [0, 5, 0, 0]) is None
    assert before(conv, SAME, [0, 5, 1, 0]) is Reason.ZERO_PAD


# shift_passes against its definition

small = st.integers(1, 3)


@given(
    st.booleans(), small, small, st.integers(0, 2), st.integers(1, 2), st.integers(1, 2), st.integers(3, 5), st.data()
)
@settings(max_examples=120, deadline=None)
def test_a_shift_passes_if_and_only_if_a_constant_image_is_answered_by_one(
    transposed: bool, kernel: int, stride: int, pad: int, dilation: int, groups: int, size: int, data: st.DataObject
) -> None:
    """Small integer weights, some of them zero or zero in sum, so that channels pass by chance; the sums are exact."""
    reach = dilation * (kernel - 1) + 1
    fits = (size - 1) * stride + reach - 2 * pad if transposed else size + 2 * pad - reach + 1
    if fits < 1:
        return
    net = Net()
    channels, out = 2 * groups, 2 * groups
    extra = data.draw(st.integers(0, min(stride, dilation + 1) - 1)) if transposed and stride > 1 else 0
    extra = 0 if extra >= max(stride, dilation) else extra
    first, second = (channels, out // groups) if transposed else (out, channels // groups)
    values = data.draw(
        st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=first * second * kernel, max_size=first * second * kernel)
    )
    weight = np.array(values, dtype=np.float64).reshape(first, second, kernel)
    if data.draw(st.booleans()):
        weight[..., :] = weight[..., :1] * np.array([1, -1, 0])[:kernel]
    x = net.input(1, channels, size)
    net.conv(
        x, out, kernel, pad, stride=stride, dilation=dilation, groups=groups, bias=False, transposed=transposed,
        output_padding=extra, weight=frozen(weight),
    )  # fmt: skip
    [op] = net.ops
    assert isinstance(op, Linear)
    for channel, passes in enumerate(shift_passes(op)):
        image = torch.zeros(1, channels, size, dtype=torch.float64)
        image[:, channel] = 1
        answer = net.run_linear[op.name](image, torch_of(weight))
        constant = bool((answer == answer[..., :1]).all())
        assert passes == constant, f"channel {channel}"
        if passes:
            want = answer[0, :, 0].numpy()
            np.testing.assert_array_equal(op.kernel.response(weight, np.eye(channels)[channel]), want)


def test_a_rounding_error_in_the_weights_counts_as_different() -> None:
    net = Net()
    x = net.input(1, 1, 5)
    net.conv(x, 1, 3, 1, weight=frozen([[[1e-9, 1.0, 0.0]]]))
    net.conv(x, 1, 3, 1, weight=frozen([[[0.0, 1.0, 0.0]]]))
    first, second = net.ops
    assert isinstance(first, Linear)
    assert isinstance(second, Linear)
    assert (shift_passes(first).tolist(), shift_passes(second).tolist()) == ([False], [True])


def test_without_a_window_every_shift_passes() -> None:
    net = Net()
    net.linear(net.input(2, 3), 4)
    [op] = net.ops
    assert isinstance(op, Linear)
    assert shift_passes(op).all()


# Laws that take more than one operator to see


def test_a_tensor_has_one_unit_for_all_its_readers() -> None:
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 4)
    net.output(net.tanh(net.bn(x, name="norm")), x)
    assert fate(net, "norm") is Reason.IO


def test_an_input_keeps_its_meaning() -> None:
    net = Net()
    x = net.bn(net.input(2, 3, 4, 4), name="norm")
    assert fate(net.output(net.tanh(x)), "norm") is Reason.IO


def test_copies_have_the_size_of_the_result() -> None:
    """Behind the broadcast, one channel stands for 9 columns of a matrix product."""
    net = Net(free_batch=True)
    x = net.bn(net.average(net.conv(net.input(2, 3, 4, 4), 4), 4), name="norm")
    y = net.reshape(net.expand(x, 2, 4, 3, 3), 2, 36)
    assert fate(net.output(net.linear(y, 5)), "norm") is None


def test_a_gated_feature_has_the_size_of_the_result() -> None:
    """The feature has one position, the gate has many."""
    net = Net(free_batch=True)
    x = net.input(2, 3, 3, 3)
    feature = net.bn(net.average(net.conv(x, 4), 3), UP, STILL, name="norm")
    y = net.reshape(net.gate(feature, net.tanh(net.conv(x, 4))), 2, 36)
    assert fate(net.output(net.linear(y, 5)), "norm") is None


def test_the_gate_itself_is_rigid() -> None:
    """Squeeze-excite: a BatchNorm on the way into the multiplication, on the gate's side, stays."""
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 4)
    gate = net.bn(net.tanh(net.mean_gate(x)), UP, STILL, name="norm")
    assert fate(net.output(net.gate(x, gate)), "norm") is Reason.NONLINEAR


def test_a_gate_is_the_smaller_of_two() -> None:
    """Neither side is rigid: the feature is the one with positions."""
    net = Net()
    x = net.conv(net.input(2, 3, 4, 4), 4)
    gate = net.average(net.conv(net.inputs[0], 4), 4)
    for pair in ((x, gate), (gate, x)):
        net.output(net.conv(net.bn(net.gate(*pair), DOWN, STILL, name=f"norm{len(net.outputs)}"), 2, 3, 1))
    assert fate(net, "norm0") is None


def test_max_ties_the_shift_of_its_operands() -> None:
    """Only one operand is shifted: the other has to follow, and cannot."""
    net = Net()
    x = net.bn(net.conv(net.input(2, 3, 4, 4), 4), SAME, MOVE, name="norm")
    assert fate(net.output(net.maximum(x, net.tanh(net.input(2, 4, 4, 4)))), "norm") is None  # into the conv
    net = Net()
    x = net.bn(net.tanh(net.input(2, 4, 4, 4)), SAME, MOVE, name="norm")
    y = net.maximum(x, net.tanh(net.input(2, 4, 4, 4)))
    assert fate(net.output(net.conv(y, 2)), "norm") is Reason.NONLINEAR  # nothing here is an input or output


def test_max_over_inputs_and_results_side_by_side() -> None:
    """In the last channels both operands are rigid, each for its own reason: nothing to solve there."""
    net = Net()
    x = net.input(2, 3, 4, 4)
    left, right = net.concat(net.conv(x, 2), x), net.concat(net.conv(x, 2), net.tanh(x))
    net.output(net.tanh(net.bn(net.maximum(left, right), name="norm")))
    assert fate(net, "norm") in (Reason.IO, Reason.NONLINEAR)


def test_zeros_padded_as_channels_have_any_scale() -> None:
    """Option A of the first ResNets: the shortcut is padded with zero channels before the sum."""
    net = Net()
    x = net.relu(net.bn(net.conv(net.input(2, 3, 4, 4), 2), UP[:2], STILL[:2]))
    short = net.zero_pad(x, (0, 1, 0, 0), (0, 1, 0, 0))
    y = net.bn(net.conv(x, 4, 3, 1), name="norm")
    assert fate(net.output(net.tanh(net.add(short, y))), "norm") is None


def test_a_table_takes_any_unit() -> None:
    net = Net()
    y = net.affine(net.table(net.input(2, 5), 7, 4), DOWN, MOVE, name="affine")
    assert fate(net.output(net.tanh(y)), "affine") is None


def test_a_constant_added_by_position_takes_any_shift() -> None:
    """A position embedding behind a matrix product whose own bias would do as well, and one behind a rigid value."""
    net = Net()
    x = net.linear(net.input(2, 5, 3), 4, bias=False)
    y = net.affine(x, 1.0, net.random(5, 4))
    assert fate(net.output(net.tanh(net.affine(y, UP, MOVE, name="affine"))), "affine") is None


def test_a_constant_multiplied_by_position_lets_only_a_scale_pass() -> None:
    for shift, want in ((0.0, None), (1.0, Reason.ZERO_PAD)):
        net = Net()
        y = net.affine(net.linear(net.input(2, 5, 3), 4), net.random(5, 4))
        assert fate(net.output(net.tanh(net.affine(y, UP, shift, name="affine"))), "affine") is want


def test_weights_used_twice_serve_both_in_equal_units_only() -> None:
    for other, want in ((UP, None), (SAME, Reason.SHARED_WEIGHT)):
        net = Net()
        x = net.input(2, 3, 4, 4)
        weight = net.random(4, 3, 1, 1)
        for name, scale in (("first", UP), ("second", other)):
            y = net.conv(x, 4, weight=weight, share="weight")
            net.output(net.tanh(net.bn(y, scale, name=name)))
        assert fate(net, "first") is want or fate(net, "second") is want


def test_a_frozen_weight_lets_a_shift_pass_and_no_scale() -> None:
    for scale, want in ((SAME, None), (UP, Reason.NOT_CONSTANT)):
        net = Net()
        x = net.conv(net.input(2, 3, 4, 4), 4, froze=Reason.NOT_CONSTANT)
        assert fate(net.output(net.tanh(net.bn(x, scale, MOVE, name="norm"))), "norm") is want


def recurrent(frozen_as: Reason | None = None) -> Graph:
    ops: list[Op] = [
        Affine("norm", "x", "y", frozen(np.full((1, 3, 1), 2.0)), frozen(np.ones((1, 3, 1))), batch_norm=True),
        Recurrent("lstm", "y", 1, ("z",), "weight", 3, frozen_as),
    ]
    return Graph(tuple(ops), {"x": (5, 3, 2), "y": (5, 3, 2), "z": (5, 4, 2)}, ("x",), ("z",))


def test_a_recurrent_input_takes_any_unit() -> None:
    assert solve(read_laws(recurrent())).removed == {"norm"}


def test_a_frozen_recurrent_input_takes_no_scale() -> None:
    assert solve(read_laws(recurrent(Reason.DTYPE))).refused == {"norm": Reason.DTYPE}


def test_an_operator_without_a_law_is_an_error_of_ours() -> None:
    with pytest.raises(TypeError, match="no law for Op"):
        read_laws(Graph((Op("what"),), {}, (), ()))


def test_values_that_nothing_produced_are_a_boundary() -> None:
    graph = Graph((Affine("a", "?", "y", frozen([2.0]), frozen([0.0])),), {"?": (3,), "y": (3,)}, (), ("y",))
    assert solve(read_laws(graph)).refused["a"] in (Reason.BOUNDARY, Reason.IO)


def test_a_table_whose_rows_are_an_output_is_rigid() -> None:
    graph = Graph((Table("t", "y", 1, 3, "w"),), {"y": (2, 3)}, (), ("y",))
    system = read_laws(graph)
    assert [reason for _, reason in system.rigid] == [Reason.IO]
    assert solve(system).unit(system.views["t"][1]).is_identity


def test_rigid_operators_give_their_own_reason() -> None:
    graph = Graph(
        (
            Rigid("r", ("x",), ("y",), Reason.HOOK),
            Affine("a", "y", "z", frozen([[2.0, 3.0]]), frozen([[0.0, 1.0]]), batch_norm=True),
            Rigid("s", ("z",), ("out",), Reason.HOOK),
        ),
        {"x": (1, 2), "y": (1, 2), "z": (1, 2), "out": (1, 2)}, ("x",), ("out",),
    )  # fmt: skip
    assert solve(read_laws(graph)).refused == {"a": Reason.HOOK}
