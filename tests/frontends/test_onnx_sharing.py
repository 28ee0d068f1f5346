"""One stored weight behind several operators: shared while their units agree, copied where that removes BatchNorms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices
from tests.frontends.onnx_case import Case, Folded, check, codes, fold, same_function

ALIKE = {"gamma": np.arange(1, 5), "var": np.ones(4)}


def siamese(*given: dict[str, np.ndarray]) -> onnx.ModelProto:
    """One convolution on as many inputs as there are BatchNorms behind it, each with parameters of its own."""
    c = Case()
    w = c.draw(4, 3, 1, name="w")
    xs = [c.input("N", 3, 6, name=f"x{i}") for i in range(len(given))]
    convs = [c.op("Conv", x, w, label=f"conv{i}") for i, x in enumerate(xs)]
    return c.model(*(c.bn(y, 4, **params) for y, params in zip(convs, given, strict=True)))


def weights(folded: Folded, op_type: str = "Conv", at: int = 1) -> list[str]:
    """The names of the weights that operators of a kind read."""
    return [node.input[at] for node in folded.after.graph.node if node.op_type == op_type]


def nbytes(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(t).nbytes for t in model.graph.initializer)


def test_a_copy_frees_the_second_use() -> None:
    folded = check(siamese({}, {}))
    assert len(set(weights(folded))) == 2
    first, second = folded.plan.sites
    assert (first.into, first.copies) == (("conv0",), ())
    assert (second.into, second.copies) == (("conv1",), ("conv1",))
    assert second.to_dict()["copies"] == ["conv1"]
    assert "copies" not in first.to_dict()


def test_never_keeps_all_but_one() -> None:
    folded = check(siamese({}, {}, {}), "SHARED-WEIGHT", "SHARED-WEIGHT", duplicate="never")
    assert len(set(weights(folded))) == 1
    assert all(not site.copies for site in folded.plan.sites)


def test_twins_that_became_one_are_solved_again() -> None:
    """While there are two, one's bias is part of it, and its result's unit is that of the graph's output."""
    c = Case()
    x, w = c.input("N", 6), c.draw(6, 3)
    first = c.op("Add", c.op("MatMul", x, w), c.draw(3))
    second = c.bn(c.op("MatMul", x, w), 3)
    folded = check(c.model(first, second), duplicate="never")
    assert sorted(folded.ops()) == ["Add", "Add", "MatMul", "Mul"]


def test_batch_norms_that_stay_and_do_the_same_become_one() -> None:
    """A block that is called for each of its readers; negative gammas pass no MaxPool."""
    c = Case()
    x = c.input("N", 4, 8, 8)
    w, params = c.draw(4, 4, 1, 1), c.bn_params(4, gamma=-np.ones(4))
    norms = [c.op("BatchNormalization", c.op("Relu", c.op("Conv", x, w)), *params, label=f"norm{i}") for i in range(3)]
    other = c.bn(c.op("Relu", c.op("Conv", x, w)), 4, gamma=-np.ones(4), label="other")
    pools = [c.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]) for y in (*norms, other)]
    folded = check(c.model(c.op("Concat", *pools, axis=1)), "NEGATIVE-GAMMA", "NEGATIVE-GAMMA")
    assert [(site.name, site.status, site.into) for site in folded.plan.sites] == [
        ("norm0", "kept", ()),
        ("norm1", "merged", ("norm0",)),
        ("norm2", "merged", ("norm0",)),
        ("other", "kept", ()),
    ]
    assert sorted(folded.ops()) == ["BatchNormalization"] * 2 + ["Concat", "Conv", "MaxPool", "MaxPool", "Relu"]


def test_a_bias_that_becomes_the_same_stays_shared() -> None:
    """A block called once for each of its readers ends up as one."""
    c = Case()
    x, w, b, params = c.input("N", 4, 6, 6), c.draw(5, 4, 3, 3), c.draw(5), c.bn_params(5)
    blocks = [c.op("BatchNormalization", c.op("Conv", x, w, b), *params) for _ in range(2)]
    y = c.op("Concat", c.op("Sigmoid", blocks[0]), c.op("Tanh", blocks[1]), axis=1)
    folded = check(c.model(y))
    assert folded.ops() == ["Conv", "Sigmoid", "Tanh", "Concat"]


def test_uses_in_equal_units_go_on_sharing() -> None:
    folded = check(siamese(ALIKE, {}, ALIKE, {}))
    one, two, three, four = weights(folded)
    assert one == three
    assert len({one, two, four}) == 3
    assert [site.copies for site in folded.plan.sites] == [(), ("conv1",), (), ("conv3",)]


def test_one_module_called_twice_is_not_copied() -> None:
    c = Case()
    w, params = c.draw(4, 3, 1), c.bn_params(4)
    xs = [c.input("N", 3, 6), c.input("N", 3, 6, name="z")]
    folded = check(c.model(*(c.op("BatchNormalization", c.op("Conv", x, w), *params) for x in xs)))
    assert len(set(weights(folded))) == 1
    assert folded.plan.growth == 0


def test_growth_is_what_the_weights_grow_by() -> None:
    proto = siamese({}, ALIKE, {}, ALIKE)
    folded = check(proto)
    biases = sum(folded.initializer(name).nbytes for name in weights(folded, at=2))
    params = 4 * 4 * 4 * 8
    assert folded.plan.growth == 2 * 4 * 3 * 8
    assert nbytes(folded.after) - nbytes(proto) == folded.plan.growth + biases - params


def head(levels: int, *, mixed: bool) -> onnx.ModelProto:
    """A detector's head: one tower of two convolutions on several levels, BatchNorms of its own on each.

    With `mixed`, each gamma has its own signs, which cannot pass a ReLU.
    """
    c = Case()
    tower = [(4, c.draw(4, 4, 3, 3)), (8, c.draw(8, 4, 3, 3))]
    outs = []
    for level in range(levels):
        x = c.input("N", 4, "H", "W", name=f"p{level}")
        for width, w in tower:
            x = c.op("Conv", x, w, pads=[1, 1, 1, 1])
            signs = np.resize([1, -1], width + level)[level:] if mixed else 1
            x = c.op("Relu", c.bn(x, width, gamma=c.rng.uniform(0.5, 2, width) * signs))
        outs.append(c.op("Sigmoid", x))
    return c.model(*outs)


def test_the_head_of_a_detector() -> None:
    proto = head(2, mixed=True)
    check(proto, "NEGATIVE-GAMMA", "SHARED-WEIGHT", duplicate="never")  # of the first weight, and of the second
    assert len(set(weights(check(proto)))) == 4


def test_the_head_of_a_detector_with_positive_gammas_needs_half_the_copies() -> None:
    """The first weight goes on being shared: its BatchNorms' scales pass the ReLUs into copies of the second."""
    proto = head(3, mixed=False)
    check(proto, *["SHARED-WEIGHT"] * 4, duplicate="never")
    assert len(set(weights(check(proto)))) == 4


@pytest.mark.parametrize("op_type", ["Gemm", "MatMul", "ConvTranspose"])
def test_every_operator_with_weights(op_type: str) -> None:
    transposed = op_type == "ConvTranspose"
    c = Case(dtype=np.float32 if transposed else np.float64)
    shape: Sequence[int | str] = ("N", 4, 5) if transposed else ("N", 4)
    w = c.draw(4, 3, 2) if transposed else c.draw(4, 3)
    ys = [c.bn(c.op(op_type, c.input(*shape, name=f"x{i}"), w), 3) for i in range(2)]
    folded = check(c.model(*ys), ort=transposed)
    assert len(set(weights(folded, op_type))) == 2


def test_a_matrix_that_multiplies_from_the_left() -> None:
    c = Case()
    w = c.draw(4, 3)
    ys = [c.bn(c.op("MatMul", w, c.input("N", 3, 5, name=f"x{i}")), 4) for i in range(2)]
    assert len(set(weights(check(c.model(*ys)), "MatMul", 0))) == 2


def test_forward_folds_into_copies_as_well() -> None:
    c = Case()
    w = c.draw(4, 3)
    ys = [c.op("Gemm", c.bn(c.op("Sigmoid", c.input("N", 3, name=f"x{i}")), 3), w, transB=1) for i in range(2)]
    folded = check(c.model(*ys))
    assert len(set(weights(folded, "Gemm"))) == 2
    check(c.model(*ys), "SHARED-WEIGHT", duplicate="never")


def test_recurrent_inputs() -> None:
    c = Case(dtype=np.float32)
    w, r = c.draw(1, 8, 3), c.draw(1, 8, 2)
    outs = []
    for i in range(2):
        x = c.op("Transpose", c.bn(c.op("Sigmoid", c.input(5, 3, "N", name=f"x{i}")), 3), perm=[0, 2, 1])
        outs.append(c.op("LSTM", x, w, r, outputs=[f"y{i}"], hidden_size=2))
    proto = c.model(*outs)
    folded = check(proto, ort=True)
    assert len(set(weights(folded, "LSTM"))) == 2
    check(proto, "SHARED-WEIGHT", ort=True, duplicate="never")


def test_a_weight_that_another_kind_of_operator_reads_stays_for_it() -> None:
    c = Case()
    w = c.draw(3, 4, name="w")
    y = c.bn(c.op("MatMul", c.input("N", 3), w), 4)
    folded = check(c.model(y, c.op("Mul", c.input(3, 4, name="z"), w)))
    assert folded.plan.growth == 3 * 4 * 8
    np.testing.assert_array_equal(folded.initializer("w"), numpy_helper.to_array(folded.before.graph.initializer[0]))


def test_a_matrix_that_mixes_positions_on_both_sides_is_not_copied() -> None:
    c = Case()
    w, mixing, outs = c.draw(4, 3, 1), c.draw(6, 6), []
    for i in range(2):
        y = c.bn(c.op("Conv", c.input("N", 3, 6, name=f"x{i}"), w), 4)
        outs.append(c.op("Sigmoid", c.op("MatMul", y, mixing)))
    folded = check(c.model(*outs))
    assert len(set(weights(folded))) == 2
    assert len(set(weights(folded, "MatMul"))) == 1


def test_a_copy_that_removes_nothing_is_not_made() -> None:
    """The first weight ties nothing that could go: Sigmoid on both sides of its BatchNorms."""
    c = Case()
    w, outs = c.draw(4, 3, 1), []
    for i in range(2):
        y = c.op("Sigmoid", c.op("Conv", c.input("N", 3, 6, name=f"x{i}"), w))
        outs.append(c.op("Sigmoid", c.bn(y, 4)))
    folded = check(c.model(*outs), "NONLINEAR", "NONLINEAR")
    assert folded.plan.growth == 0
    assert [n.SerializeToString() for n in folded.after.graph.node] == [
        n.SerializeToString() for n in folded.before.graph.node
    ]


def test_one_set_of_parameters_under_two_batch_norms_that_stay_and_go() -> None:
    c = Case()
    params = c.bn_params(4)
    kept = c.op("Sigmoid", c.op("BatchNormalization", c.op("Sigmoid", c.input("N", 4, 6)), *params))
    gone = c.op("BatchNormalization", c.conv(c.input("N", 3, 6, name="z"), 4, 3, 1), *params)
    check(c.model(kept, gone), "NONLINEAR")


def planned(small: int, large: int, rest: int, duplicate: str) -> tuple[tuple[str, ...], int]:
    """Reasons and growth for two weights of some sizes in bytes, each with two BatchNorms, beside other weights."""
    c = Case(dtype=np.float32)
    outs = []
    for size in (small, large):
        w = c.draw(4, size // 16, 1)
        outs += [c.bn(c.op("Conv", c.input("N", size // 16, 2, name=f"x{size}_{i}"), w), 4) for i in range(2)]
    outs.append(c.op("MatMul", c.input("N", rest // 16, name="rest"), c.const(np.zeros((rest // 16, 4)))))
    plan = fold_model(ir.from_proto(c.model(*outs)), Choices(duplicate=duplicate))[1]
    return codes(plan), plan.growth


@pytest.mark.parametrize(
    ("small", "large", "rest", "duplicate", "left", "growth"),
    [
        (16_000, 984_000, 16, "auto", 0, 1_000_000),  # 1 MB in all
        (16_016, 984_000, 16, "auto", 1, 16_016),  # more; the small one removes as much for less
        (16_000, 1_200_000, 24_000_000, "auto", 0, 1_216_000),  # 5 % of 25.2 MB
        (16_000, 1_200_000, 16_000_000, "auto", 1, 16_000),
        (1_600_000, 1_200_000, 16, "auto", 2, 0),
        (1_600_000, 1_200_000, 16, "always", 0, 2_800_000),
        (16_000, 16_016, 16, "never", 2, 0),
    ],
)
def test_the_file_grows_by_5_percent_or_1_mb_at_most(
    small: int, large: int, rest: int, duplicate: str, left: int, growth: int
) -> None:
    assert planned(small, large, rest, duplicate) == (("SHARED-WEIGHT",) * left, growth)


def tangle(seed: int, *, shared: bool) -> onnx.ModelProto:
    """Random towers over a few weights, which are stored once, or once per use: the same function either way."""
    draw = np.random.default_rng(seed)
    c = Case(seed=seed)
    pool = [c.rng.standard_normal((4, 4, 1 + 2 * int(padded))) for padded in draw.integers(0, 2, 3)]
    names = [c.const(w) for w in pool]
    outs = []
    for level in range(3):
        x = c.input("N", 4, 6, name=f"x{level}")
        for _ in range(4):
            which = int(draw.integers(3))
            weight = names[which] if shared else c.const(pool[which])
            pad = pool[which].shape[2] // 2
            y = c.op("Conv", x, weight, pads=[pad, pad])
            if draw.random() < 0.7:
                y = c.bn(y, 4, gamma=c.mixed(4) if draw.random() < 0.3 else c.rng.uniform(0.5, 2, 4))
            if draw.random() < 0.3:
                y = c.op("Add", x, y)
            x = c.op(str(draw.choice(["Relu", "Relu", "Sigmoid", "Identity"])), y)
        outs.append(c.op("Sigmoid", x))
    return c.model(*outs)


@pytest.mark.parametrize("seed", range(12))
def test_with_copies_as_much_goes_as_if_each_use_had_its_weight(seed: int) -> None:
    alone = fold(tangle(seed, shared=False)).plan
    kept = {word: fold(tangle(seed, shared=True), duplicate=word) for word in ("never", "auto", "always")}
    for folded in kept.values():
        same_function(folded)
    assert kept["always"].plan.kept == kept["auto"].plan.kept == alone.kept <= kept["never"].plan.kept
