"""The scale and bias of LayerNormalization and its kin: into what reads them where the laws allow, else untouched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx_case import Case, assert_same, draw, run

from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices
from bnfold.planning.plan import Plan


def written(proto: onnx.ModelProto) -> bytes:
    """Operators and weights; shapes that were inferred are no change."""
    bare = onnx.ModelProto()
    bare.CopyFrom(ir.to_proto(ir.from_proto(proto)))
    del bare.graph.value_info[:]
    return bare.SerializeToString(deterministic=True)


def declared(proto: onnx.ModelProto, name: str, shape: Sequence[int | str]) -> onnx.ModelProto:
    """The model with the shape of a value that ONNX does not infer."""
    kind = proto.graph.input[0].type.tensor_type.elem_type
    proto.graph.value_info.append(helper.make_tensor_value_info(name, kind, shape))
    return proto


def check(
    proto: onnx.ModelProto, *fates: str, ort: bool = False, valid: bool = True
) -> tuple[onnx.ModelProto, Plan, dict[str, np.ndarray]]:
    """Fold with the affine parts; these are the fates of all affines, and the function is the same.

    Returns:
        The model, the plan, and the initializers by name.
    """
    model = ir.from_proto(proto)
    before = written(ir.to_proto(model))
    folded, plan = fold_model(model, Choices(norm_affine=True))
    assert written(ir.to_proto(model)) == before, "the argument was changed"
    assert plan == fold_model(model, Choices(norm_affine=True))[1]
    after = ir.to_proto(folded)
    if valid:
        onnx.checker.check_model(after, full_check=True)
    assert tuple(site.status for site in plan.affines) == fates, plan.affines
    for seed, sizes in enumerate(({"N": 2, "L": 4}, {"N": 1, "L": 3})):
        feeds = draw(proto, sizes, seed, {})
        assert_same(run(proto, feeds, ort), run(after, feeds, ort))
    again, _ = fold_model(folded, Choices(norm_affine=True))
    assert written(ir.to_proto(again)) == written(after), "a second fold changed the model"
    return after, plan, {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}


def ops(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def tokens(c: Case, *, bias: bool = True, **attributes: Any) -> str:
    """Tokens of 6 features, normalised."""
    operands = [c.input("N", "L", 6), c.draw(6, name="gamma"), *([c.draw(6, name="beta")] if bias else [])]
    return str(c.op("LayerNormalization", *operands, label="ln", **attributes))


def linear(c: Case, x: str, out: int, features: int = 6, *, bias: bool = True) -> str:
    y = c.op("MatMul", x, c.draw(features, out))
    return str(c.op("Add", y, c.draw(out)) if bias else y)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_norm_folds_into_the_linear_behind_it(bias: bool) -> None:
    c = Case()
    after, plan, held = check(c.model(linear(c, tokens(c, bias=bias), 4)), "folded")
    assert ops(after) == ["LayerNormalization", "MatMul", "Add"]
    norm = after.graph.node[0]
    assert list(norm.input)[2:] == []
    np.testing.assert_array_equal(held[norm.input[1]], np.ones(6))
    assert "beta" not in held
    [site] = plan.affines
    assert (site.name, site.op, site.reason, len(site.into)) == ("ln", "LayerNormalization", None, 1)


def test_it_stays_as_it_is_unless_asked_for() -> None:
    c = Case()
    proto = c.model(linear(c, tokens(c), 4))
    folded, plan = fold_model(ir.from_proto(proto))
    assert plan.affines == ()
    assert written(ir.to_proto(folded)) == written(proto)


def test_all_of_its_readers_take_it() -> None:
    """Queries, keys and values."""
    c = Case()
    x = tokens(c)
    after, plan, _ = check(c.model(*(linear(c, x, 4) for _ in range(3))), "folded")
    assert ops(after).count("Add") == 3
    assert len(plan.affines[0].into) == 3


def test_a_linear_without_bias_gets_one() -> None:
    c = Case()
    after, _, _ = check(c.model(linear(c, tokens(c), 4, bias=False)), "folded")
    assert ops(after) == ["LayerNormalization", "MatMul", "Add"]
    c = Case()
    after, _, _ = check(c.model(linear(c, tokens(c, bias=False), 4, bias=False)), "folded")
    assert ops(after) == ["LayerNormalization", "MatMul"]


@pytest.mark.parametrize("reader", ["Gelu", "residual", "output"])
def test_what_cannot_take_it_leaves_every_bit(reader: str) -> None:
    c = Case(opset=20)
    x = tokens(c)
    y = {
        "Gelu": lambda: linear(c, c.op("Gelu", x), 4),
        "residual": lambda: c.op("Add", linear(c, c.op("Tanh", x), 6), x),
        "output": lambda: x,
    }[reader]()
    proto = c.model(y)
    after, _, _ = check(proto, "kept")
    assert written(after) == written(proto)


def test_a_residual_takes_the_bias_and_keeps_the_scale() -> None:
    """Post-norm: what is normalised is also the stream, so its scale is needed; both stay, or both go."""
    c = Case()
    x = tokens(c)
    y = c.op("Add", linear(c, c.op("Abs", x), 6), x)
    proto = c.model(c.op("Tanh", y))
    check(proto, "kept")


def test_a_linear_branch_beside_its_own_input_is_one_matrix() -> None:
    c = Case()
    x = tokens(c)
    check(c.model(c.op("Tanh", c.op("Add", linear(c, x, 6), x))), "folded")


def test_a_gamma_of_zero_folds() -> None:
    c = Case()
    gamma = c.const(np.array([1.0, 0, -2, 3, 0, 1e-9]))
    y = c.op("LayerNormalization", c.input("N", "L", 6), gamma, c.draw(6), label="ln")
    check(c.model(linear(c, y, 4)), "folded")


@pytest.mark.parametrize(("axis", "fates"), [(-1, ("folded",)), (2, ("folded",)), (1, ()), (-2, ())])  # of rank 3
def test_only_a_scale_along_the_last_axis_is_one_of_channels(axis: int, fates: Sequence[str]) -> None:
    c = Case()
    shape = (6,) if axis in (-1, 2) else (5, 6)
    y = c.op("LayerNormalization", c.input("N", 5, 6), c.draw(*shape), c.draw(*shape), axis=axis)
    check(c.model(linear(c, y, 4)), *fates)


def test_parameters_that_a_caller_may_override_stay() -> None:
    c = Case()
    y = c.op("LayerNormalization", c.input("N", "L", 6), c.input(6, name="gamma"), c.draw(6))
    check(c.model(linear(c, y, 4)))
    c = Case()
    y = c.op("LayerNormalization", c.input("N", "L", 6), c.draw(6), c.input(6, name="beta"))
    check(c.model(linear(c, y, 4)))


def test_other_outputs_stay() -> None:
    c = Case()
    x = c.input("N", "L", 6)
    y, mean, _ = c.op("LayerNormalization", x, c.draw(6), c.draw(6), outputs=3)
    after, _, _ = check(c.model(linear(c, y, 4), mean), "folded")
    assert len(after.graph.node[0].output) == 3


def test_channels_that_move_are_followed() -> None:
    """ConvNeXt: channels last for the normalisation, then a convolution; padded, it takes the scale only."""
    for pads, fate in (((0,) * 4, "folded"), ((1,) * 4, "kept")):
        c = Case()
        y = c.op("Transpose", c.input("N", 6, 5, 5), perm=[0, 2, 3, 1])
        y = c.op("LayerNormalization", y, c.draw(6), c.draw(6))
        y = c.conv(c.op("Transpose", y, perm=[0, 3, 1, 2]), 4, 6, 3, 3, pads=pads)
        check(c.model(y), fate)


def test_what_stays_takes_over_a_batch_norm() -> None:
    """LayerNormalization → BatchNormalization is one LayerNormalization; without the option the BatchNorm stays."""
    c = Case()
    y = c.op("LayerNormalization", c.input("N", 6), c.draw(6, name="gamma"), label="ln")
    proto = c.model(c.op("Tanh", c.bn(y, 6)))
    assert fold_model(ir.from_proto(proto))[1].kept == 1
    after, plan, _ = check(proto, "kept")
    assert (plan.folded, ops(after)) == (1, ["LayerNormalization", "Tanh"])
    assert len(after.graph.node[0].input) == 3


@pytest.mark.parametrize("op", ["InstanceNormalization", "GroupNormalization"])
def test_norms_that_need_a_bias_get_zeros(op: str) -> None:
    c = Case(opset=21)
    more = {"num_groups": 2} if op == "GroupNormalization" else {}
    y = c.op(op, c.input("N", 4, 5, 5), c.draw(4), c.draw(4), **more)
    z = c.conv(y, 3, 4, 3, 3)
    proto = declared(c.model(z, shapes={z: ("N", 3, 3, 3)}), y, ("N", 4, 5, 5))
    after, plan, held = check(proto, "folded")
    assert ops(after) == [op, "Conv"]
    scale, bias = (held[name] for name in after.graph.node[0].input[1:])
    np.testing.assert_array_equal(scale, np.ones(4))
    np.testing.assert_array_equal(bias, np.zeros(4))
    assert plan.affines[0].op == op


def group_norm_18(reader: str) -> onnx.ModelProto:
    """Scale and bias are per group; ONNX has since withdrawn it, and its checker no longer takes it."""
    c = Case(opset=21)
    y = c.op("GroupNormalization", c.input("N", 4, 5, 5), c.draw(2), c.draw(2), num_groups=2, label="gn")
    z = c.op("Tanh", c.conv(y, 3, 4, 3, 3) if reader == "conv" else c.bn(y, 4))
    proto = declared(c.model(z, shapes={z: ("N", "C", "H", "W")}), y, ("N", 4, 5, 5))
    proto.opset_import[0].version = 18
    return proto


def test_a_group_norm_of_opset_18_has_a_scale_per_group() -> None:
    after, _, held = check(group_norm_18("conv"), "folded", valid=False)
    assert ops(after) == ["GroupNormalization", "Conv", "Tanh"]
    assert held[after.graph.node[0].input[1]].tolist() == [1, 1]


def test_a_group_norm_of_opset_18_has_no_room_for_a_batch_norm() -> None:
    after, plan, _ = check(group_norm_18("bn"), "kept", valid=False)
    assert plan.folded == 1
    assert ops(after) == ["GroupNormalization", "Mul", "Add", "Tanh"]


def rms_norm(op: str, reader: str) -> onnx.ModelProto:
    c = Case(opset=23, ir_version=10, dtype=np.float32)
    y = c.op(op, c.input("N", 6), c.draw(6), axis=-1, label="rms")
    y = linear(c, y, 4, bias=False) if reader == "linear" else c.op("Tanh", c.bn(y, 6))
    return c.model(y)


def test_an_rms_norm_folds_and_adds_nothing() -> None:
    after, _, held = check(rms_norm("RMSNormalization", "linear"), "folded")
    assert ops(after) == ["RMSNormalization", "MatMul"]
    np.testing.assert_array_equal(held[after.graph.node[0].input[1]], np.ones(6))


def test_an_rms_norm_has_no_room_for_a_shift() -> None:
    after, plan, _ = check(rms_norm("RMSNormalization", "bn"), "kept")
    assert plan.folded == 1
    assert ops(after)[-2:] == ["Add", "Tanh"]


def test_an_rms_norm_that_an_exporter_spelt_out_needs_no_option() -> None:
    c = Case()
    x = c.input("N", "L", 6)
    square = c.op("ReduceMean", c.op("Mul", x, x), c.ints(-1))
    y = c.op("Mul", c.op("Mul", x, c.op("Reciprocal", c.op("Sqrt", square))), c.draw(6))
    folded, plan = fold_model(ir.from_proto(c.model(linear(c, y, 4))))
    assert [site.status for site in plan.affines] == ["folded"]
    assert ops(ir.to_proto(folded)).count("Mul") == 2


def test_half_precision_is_rounded_once() -> None:
    c = Case(dtype=np.float16)
    check(c.model(linear(c, tokens(c), 4)), "folded")


def test_a_shared_gamma_is_left_to_the_others() -> None:
    c = Case()
    gamma, beta = c.draw(6, name="gamma"), c.draw(6, name="beta")
    x = c.input("N", "L", 6)
    one, two = (c.op("LayerNormalization", v, gamma, beta, label=n) for n, v in (("a", x), ("b", c.op("Sin", x))))
    after, plan, held = check(c.model(linear(c, one, 4), c.op("Tanh", two)), "folded", "kept")
    assert [site.name for site in plan.affines] == ["a", "b"]
    assert not np.all(held["gamma"] == 1)
    assert list(after.graph.node[[n.name for n in after.graph.node].index("b")].input)[1:] == ["gamma", "beta"]


def test_the_rms_norm_of_onnxruntime_is_read_as_well() -> None:
    """Its optimiser writes the operator into the default domain, where ONNX does not know it."""
    c = Case(dtype=np.float32)
    y = c.op("LayerNormalization", c.input("N", 6), c.draw(6), axis=-1, label="rms")
    proto = declared(c.model(linear(c, y, 4, bias=False)), y, ("N", 6))
    proto.graph.node[0].op_type = "SimplifiedLayerNormalization"
    after, _, held = check(proto, "folded", ort=True, valid=False)
    assert ops(after) == ["SimplifiedLayerNormalization", "MatMul"]
    np.testing.assert_array_equal(held[after.graph.node[0].input[1]], np.ones(6))
