"""Branch merges: the algebra against naive convolutions in float64, and where in a graph the search finds them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade import CONV, Net, frozen, torch_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from meaning import evaluate

from bnfold.branches.box import Box, box_of, groupings
from bnfold.branches.search import MergedSum, find_merges, may_merge
from bnfold.branches.taps import NOTHING, Branch, Diagonal, diagonal
from bnfold.units.affine import Kernel
from bnfold.units.graph import Add, Linear, Spatial
from bnfold.units.window import Window

CHANNELS = 4


def linear(rng: np.random.Generator, window: Window, out: int, groups: int) -> Linear:
    weight = frozen(rng.standard_normal((out, CHANNELS // groups, *window.kernel)))
    reference = tuple(p[0] for p in window.patterns())
    kernel = Kernel(lambda: weight, weight.shape, 0, 1, groups, reference=reference)
    return Linear("conv", "x", "y", 1, 1, kernel, "w", window)


@st.composite
def geometries(draw: st.DrawFn, dims: int, strides: tuple[int, ...], sizes: tuple[int, ...], known: bool) -> Window:
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(dims))
    dilations = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    begin = [draw(st.integers(0, 2)) for _ in range(dims)]
    end = [draw(st.integers(0, 2)) for _ in range(dims)]
    for i in range(dims):
        if draw(st.booleans()):  # as padded as an identity
            begin[i] = min(begin[i], dilations[i] * (kernel[i] - 1))
            end[i] = dilations[i] * (kernel[i] - 1) - begin[i]
    return Window(kernel, strides, dilations, tuple(begin), tuple(end), sizes if known else (None,) * dims)


@st.composite
def branch_sets(draw: st.DrawFn, known: bool = True) -> tuple[list[Branch], tuple[int, ...], int]:
    """Branches of one tensor float64[1, 4, *sizes], with `out` channels where they are convolutions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dims = draw(st.integers(1, 2))
    sizes = tuple(draw(st.integers(5, 8)) for _ in range(dims))
    strides = tuple(draw(st.sampled_from([1, 1, 1, 2])) for _ in range(dims))
    out = draw(st.sampled_from([4, 4, 8]))
    column = Diagonal(rng.standard_normal(CHANNELS), rng.standard_normal(CHANNELS), 1)
    branches = []
    for _ in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from(["conv", "conv", "conv", "identity", "affine", "pool"]))
        if kind == "conv":
            op = linear(rng, draw(geometries(dims, strides, sizes, known)), out, draw(st.sampled_from([1, 1, 2, 4])))
            after = Diagonal(rng.standard_normal(out), rng.standard_normal(out), 1)
            bias = frozen(rng.standard_normal(out)) if draw(st.booleans()) else None
            whole = Branch(NOTHING, op, draw(st.sampled_from([NOTHING, after])), bias)
            shift = rng.standard_normal(CHANNELS) * op.window.uniform  # type: ignore[union-attr]
            before = Diagonal(rng.standard_normal(CHANNELS), shift, 1)
            branches.append(replace(whole, before=draw(st.sampled_from([NOTHING, before]))))
        elif kind == "pool":
            window = draw(geometries(dims, strides, sizes, known))
            pool = Spatial("pool", "x", "y", unit_sum=window.uniform, window=window)
            branches.append(Branch(NOTHING, pool, draw(st.sampled_from([NOTHING, column]))))
        else:
            branches.append(Branch(column if kind == "affine" else NOTHING))
    return branches, sizes, out


def slid(x: torch.Tensor, weight: torch.Tensor, window: Window, groups: int) -> torch.Tensor:
    pads = [p for pair in zip(window.pads_begin[::-1], window.pads_end[::-1], strict=True) for p in pair]
    padded = torch.nn.functional.pad(x, pads)
    return CONV[x.ndim - 2](padded, weight, None, window.strides, 0, window.dilations, groups)


def affine(x: torch.Tensor, of: Diagonal) -> torch.Tensor:
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * torch_of(of.scale).reshape(shape) + torch_of(of.shift).reshape(shape)


def naive(branch: Branch, x: torch.Tensor) -> torch.Tensor:
    """What a branch means."""
    x = affine(x, branch.before)
    if branch.op is None:
        return x
    window = branch.op.window
    assert window is not None
    if isinstance(branch.op, Linear):
        weight, groups = torch_of(branch.op.kernel.weight()), branch.op.kernel.groups
    else:
        area = math.prod(window.kernel)
        weight, groups = torch.full((CHANNELS, 1, *window.kernel), 1 / area, dtype=torch.float64), CHANNELS
    y = slid(x, weight, window, groups)
    if branch.bias is not None:
        y = y + torch_of(branch.bias).reshape(-1, *(1,) * (x.ndim - 2))
    return affine(y, branch.after)


def check_box(box: Box, branches: list[Branch], sizes: tuple[int, ...]) -> None:
    x = torch.tensor(np.random.default_rng(0).standard_normal((1, CHANNELS, *sizes)))
    weight, bias = box.total(branches)
    assert box.window is not None
    found = slid(x, torch_of(weight), box.window, box.groups) + torch_of(bias).reshape(-1, *(1,) * len(sizes))
    expected = sum(naive(b, x) for b in branches)
    assert found.shape == expected.shape  # type: ignore[union-attr]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def multiplies(branches: list[Branch]) -> int:
    return sum(b.op.kernel.weight().size for b in branches if isinstance(b.op, Linear))


def smallest(branches: list[Branch], out: int) -> int:
    """The weights of the smallest operator that holds all branches, worked out on a dense grid of offsets."""
    windows = [b.op.window for b in branches if b.op is not None and b.op.window is not None]
    groups = [b.op.kernel.groups if isinstance(b.op, Linear) else CHANNELS for b in branches]
    total = out * CHANNELS // max(g for g in range(1, CHANNELS + 1) if all(own % g == 0 for own in groups))
    for i in range(len(windows[0].kernel)):
        offsets = {0} if any(b.op is None for b in branches) else set()
        offsets |= {w.dilations[i] * j - w.pads_begin[i] for w in windows for j in range(w.kernel[i])}
        low, high = min(offsets), max(offsets)
        total *= min((high - low) // d + 1 for d in range(1, 20) if all((offset - low) % d == 0 for offset in offsets))
    return total


@settings(max_examples=250, deadline=None, database=None)
@given(branch_sets())
def test_a_box_is_the_sum_of_its_branches(drawn: tuple[list[Branch], tuple[int, ...], int]) -> None:
    branches, sizes, out = drawn
    assume(any(isinstance(b.op, Linear) for b in branches))
    box = box_of(branches, CHANNELS)
    x = torch.zeros(1, CHANNELS, *sizes, dtype=torch.float64)
    shapes = {naive(b, x).shape for b in branches}
    strides = {b.op.window.strides if b.op is not None and b.op.window else (1,) * len(sizes) for b in branches}
    possible = len(shapes) == len(strides) == 1 and smallest(branches, out) <= multiplies(branches)
    assert (box is not None) == possible
    if box is not None:
        assert box.multiplies == smallest(branches, out) <= multiplies(branches)
        check_box(box, branches, sizes)


@settings(max_examples=80, deadline=None, database=None)
@given(branch_sets(known=False))
def test_without_known_sizes_a_box_holds_at_every_size(drawn: tuple[list[Branch], tuple[int, ...], int]) -> None:
    branches, sizes, _ = drawn
    box = box_of(branches, CHANNELS)
    for more in range(4):
        larger = tuple(size + more for size in sizes)
        if box is not None:
            check_box(box, branches, larger)


def conv(kernel: int, pad: int = 0, groups: int = 1, dilation: int = 1, size: int | None = 9, out: int = 4) -> Branch:
    """A 1-D convolution of four channels."""
    window = Window((kernel,), (1,), (dilation,), (pad,), (dilation * (kernel - 1) - pad,), (size,))
    return Branch(op=linear(np.random.default_rng(kernel), window, out, groups))


@pytest.mark.parametrize(
    ("branches", "kernel", "dilation", "groups"),
    [
        pytest.param([conv(3, 1), conv(1)], 3, 1, 1, id="RepVGG"),
        pytest.param([conv(3, 2), conv(3, 0), conv(3, 1)], 5, 1, 1, id="asymmetric padding"),
        pytest.param([conv(3, 2, dilation=2), Branch()], 3, 2, 1, id="a dilated kernel keeps its gaps"),
        pytest.param([conv(3, 2, dilation=2), conv(5, 2), conv(2, 0)], 5, 1, 1, id="gaps that another one fills"),
        pytest.param([conv(3, 1, 4), conv(1, 0, 4), Branch()], 3, 1, 4, id="depthwise"),
        pytest.param([conv(3, 1, 4), conv(5, 2, 1)], 5, 1, 1, id="a dense kernel that covers a depthwise one"),
        pytest.param([conv(3, 1, 2), conv(3, 1, 4)], 3, 1, 2, id="groups in groups"),
        pytest.param([conv(3, 1), conv(4, 2), conv(5, 3)], 5, 1, 1, id="one fills what two would leave empty"),
    ],
)
def test_named_boxes(branches: list[Branch], kernel: int, dilation: int, groups: int) -> None:
    box = box_of(branches, 4)
    assert box is not None
    assert box.window is not None
    assert (box.window.kernel, box.window.dilations, box.groups) == ((kernel,), (dilation,), groups)
    check_box(box, branches, (9,))


def test_groups_that_do_not_nest_share_the_coarsest_grouping() -> None:
    rng = np.random.default_rng(0)
    window = Window((1,), (1,), (1,), (0,), (0,), (9,))
    weights = [frozen(rng.standard_normal((12, 12 // groups, 1))) for groups in (4, 6, 4)]
    kernels = [Kernel(lambda w=w: w, w.shape, 0, 1, 12 // w.shape[1]) for w in weights]  # type: ignore[misc]
    branches = [Branch(op=Linear("conv", "x", "y", 1, 1, kernel, "w", window)) for kernel in kernels]
    box = box_of(branches, 12)
    assert box is not None
    assert (box.groups, box.multiplies) == (2, 72)
    x = torch.tensor(rng.standard_normal((1, 12, 9)))
    expected = sum(slid(x, torch_of(w), window, 12 // w.shape[1]) for w in weights)
    torch.testing.assert_close(slid(x, torch_of(box.total(branches)[0]), window, 2), expected, rtol=0, atol=1e-12)
    assert box_of(branches[:2], 12) is None, "60 multiplications would become 72"


@pytest.mark.parametrize(
    "branches",
    [
        pytest.param([conv(1), conv(3, 1, 4)], id="dense and narrow, depthwise and wide"),
        pytest.param([conv(2, 0), conv(2, 7, dilation=7)], id="far apart"),
        pytest.param([conv(3, 1), conv(1, out=8)], id="different channels out"),
        pytest.param([Branch(), Branch()], id="nothing that multiplies"),
        pytest.param([conv(3, 1, out=8), Branch()], id="an identity of fewer channels"),
        pytest.param([conv(3, 1)], id="one alone"),
        pytest.param([conv(3, 1), Branch(Diagonal(np.ones(9), np.zeros(9), 2))], id="an affine along space"),
    ],
)
def test_what_no_box_can_hold(branches: list[Branch]) -> None:
    assert box_of(branches, 4) is None


def test_channels_that_are_not_known_refuse_what_is_diagonal() -> None:
    assert box_of([conv(3, 1), Branch()], None) is None
    assert box_of([conv(3, 1), conv(1)], None) is not None


def test_a_set_of_operands_grows_while_it_gets_no_dearer() -> None:
    """A depthwise 7 is too wide for a dense 3, but the dense 1 is not."""
    found = groupings([[conv(1)], [conv(7, 3, 4)], [conv(3, 1)], [Branch()]], 4)
    assert max((group for group, _ in found), key=len) == [0, 2, 3]


def search(net: Net) -> tuple[MergedSum, ...]:
    graph = net.graph()
    read: dict[str, int] = {}
    for op in graph.ops:
        for value in [getattr(op, name) for name in ("x", "a", "b") if hasattr(op, name)] or list(op.xs):  # type: ignore[attr-defined]
            read[value] = read.get(value, 0) + 1
    held = {value for value in net.shapes if read.get(value) != 1 or value in net.outputs}

    def bias(op: Linear) -> np.ndarray:
        own = net.biases[op.name]
        return np.zeros(op.kernel.out_channels) if own is None else own

    found = find_merges(graph, held, bias)
    assert not found or may_merge(graph, held, ())
    return found


def check_search(net: Net, merges: int, rest: int) -> MergedSum:
    """One tree, in which so many merges and operands are left; its value is the same in float64."""
    (tree,) = search(net)
    assert (len(tree.merges), len(tree.rest)) == (merges, rest)
    values = evaluate(net, net.feeds())
    total: torch.Tensor | float = 0.0
    for merge in tree.merges:
        x = values[str(merge.source)]
        bias = torch_of(merge.bias).reshape(-1, *(1,) * (x.ndim - 2))
        if merge.box.window is None:
            total = total + (x @ torch_of(merge.weight).T + torch_of(merge.bias))
        else:
            total = total + slid(x, torch_of(merge.weight), merge.box.window, merge.box.groups) + bias
    for value, factor in tree.rest:
        total = total + factor * values[str(value)]
    torch.testing.assert_close(total, values[str(tree.result)], rtol=0, atol=1e-10)
    return tree


def test_repvgg() -> None:
    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    a, b, c = net.bn(net.conv(x, 4, 3, 1)), net.bn(net.conv(x, 4)), net.bn(x)
    net.output(net.relu(net.add(net.add(a, b), c)))
    tree = check_search(net, 1, 0)
    assert sorted(tree.adds) == sorted(op.name for op in net.ops if isinstance(op, Add))
    assert tree.merges[0].box.main.name == "conv1"


def test_fastvit_mixes_signs_and_scales() -> None:
    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    mixed = net.add(net.bn(net.conv(x, 4, 3, 1, groups=4)), net.bn(net.conv(x, 4, groups=4)))
    scaled = net.affine(net.add(net.add(mixed, net.bn(x)), net.bn(x), -1.0), net.rng.standard_normal((1, 4, 1, 1)))
    net.output(net.tanh(net.add(x, scaled)))
    assert check_search(net, 1, 0).merges[0].box.groups == 4


def test_a_scale_with_a_shift_over_a_sum_counts_once() -> None:
    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    inner = net.bn(net.add(net.conv(x, 4, 3, 1), net.conv(x, 4)))
    net.output(net.tanh(net.add(net.conv(x, 4), inner, -1.0)))
    check_search(net, 1, 0)


def test_matrix_products() -> None:
    net = Net()
    x = net.relu(net.input(2, 4))
    y = net.add(net.linear(net.bn(x), 4, flipped=True, gain=0.5), net.affine(net.linear(x, 4), 3.0, 1.0))
    net.output(net.tanh(net.add(y, x)))
    check_search(net, 1, 0)


def test_other_operands_stay() -> None:
    net = Net()
    x, z = net.relu(net.input(2, 4, 6, 6)), net.input(2, 4, 6, 6)
    y = net.add(net.add(z, net.bn(net.conv(x, 4, 3, 1)), -1.0), net.tanh(x))
    net.output(net.tanh(net.add(y, net.bn(x), -1.0)))
    check_search(net, 1, 2)


def test_branches_of_two_tensors_are_two_merges() -> None:
    net = Net()
    x, z = net.relu(net.input(2, 4, 6, 6)), net.relu(net.input(2, 4, 6, 6))
    left, right = net.add(net.conv(x, 4, 3, 1), net.conv(z, 4)), net.add(net.conv(z, 4), net.bn(x), -1.0)
    net.output(net.tanh(net.add(left, right, -1.0)))
    check_search(net, 2, 0)


def test_a_batch_norm_before_padding_that_two_branches_share_is_their_source() -> None:
    net = Net()
    n = net.bn(net.relu(net.input(2, 4, 6, 6)))
    net.output(net.tanh(net.add(net.conv(n, 4, 3, 1), net.conv(n, 4))))
    assert check_search(net, 1, 0).merges[0].source == n


def refused(net: Net, y: str) -> bool:
    net.output(net.tanh(y))
    return search(net) == ()


def test_a_shift_does_not_pass_through_padding() -> None:
    for pad, shift, expected in ((1, 1.0, True), (1, 0.0, False), (0, 1.0, False)):
        net = Net()
        x = net.relu(net.input(2, 4, 6, 6))
        n = net.bn(x, shift=shift)
        a, b = net.conv(n, 4, 3, pad), net.conv(x, 4, 3, pad)
        assert refused(net, net.add(a, b)) is expected
        gone = [op.name for op in net.ops if op.name.startswith("bn")]
        assert may_merge(net.graph(), {x}, gone), "once the BatchNorm is gone, they merge"


def test_what_must_not_merge() -> None:
    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    a, b = net.conv(x, 4, 3, 1), net.conv(x, 4)
    net.output(a)
    assert refused(net, net.add(a, b)), "the value leaves the graph"

    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    a, b = net.conv(x, 4, 3, 1), net.conv(x, 4)
    net.output(net.relu(b))
    assert refused(net, net.add(a, b)), "something else reads the value"

    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    assert refused(net, net.add(net.conv(x, 4, transposed=True), net.conv(x, 4))), "a ConvTranspose"

    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    assert refused(net, net.add(net.conv(net.conv(x, 4, 3, 1), 4, 3, 1), net.conv(x, 4))), "two kernels in a row"

    net = Net()
    x = net.relu(net.input(2, 4, 6, 6))
    assert refused(net, net.add(net.conv(x, 4, 3, 1), net.affine(x, net.random(1, 4, 6, 6)))), "varies by position"

    net = Net()
    x = net.relu(net.input(2, 4, 1, 1))
    assert refused(net, net.add(net.conv(x, 4, 1, 1), net.conv(x, 4))), "broadcast over space"


def test_a_weight_that_overflows_is_refused() -> None:
    for dtype, expected in ((np.float16, True), (np.float32, False)):
        net = Net()
        x = net.relu(net.input(2, 4, 6, 6))
        weight = frozen(np.full((4, 4, 1, 1), 6e4), dtype)
        a, b = net.conv(x, 4, weight=weight), net.conv(x, 4, weight=weight)
        assert refused(net, net.add(a, b)) is expected


def test_an_affine_is_diagonal_along_one_axis_at_most() -> None:
    net = Net()
    x = net.input(2, 4, 6, 6)
    for scale in (net.random(4, 1, 1), net.random(1, 4, 1, 1), frozen(2.0), net.random(6)):
        net.affine(x, scale)
    axes = [d.axis if (d := diagonal(op, 4)) is not None else "none" for op in net.ops]  # type: ignore[arg-type]
    assert axes == [1, 1, None, 3]
    net.affine(x, net.random(4, 1, 6))
    assert diagonal(net.ops[-1], 4) is None  # type: ignore[arg-type]
    assert Diagonal(np.ones(4), np.zeros(4), 1).then(Diagonal(np.ones(6), np.zeros(6), 3)) is None
