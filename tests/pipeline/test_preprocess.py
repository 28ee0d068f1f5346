"""Preprocessing that becomes part of the model: against its formula in float64, and folded as far as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bnfold.errors import UsageError
from bnfold.frontends.onnx import fold_model
from bnfold.pipeline.line import convert, inspect
from bnfold.pipeline.preprocess import Preprocessing, fate, insert, raw
from bnfold.specs import parse_values

MEAN, STD, SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255
CAST = "Preprocessing is arithmetic on floats: export the model with a float input, and cast the images before it."
EACH = "Give one value per channel, or a single one for all of them."
ZERO_PAD = "ZERO-PAD: the only absorber pads with zeros and the shift has nowhere else to go"


def say(mean: Any = None, std: Any = None, scale: Any = None) -> Preprocessing:
    return Preprocessing(parse_values("mean", mean), parse_values("std", std), parse_values("scale", scale))


def conv_relu(*, pads: int = 0, shape: Sequence[int | str] = ("N", 3, 8, 8), kind: int = TensorProto.FLOAT) -> ir.Model:
    """x → Conv 3×3 → Relu → y."""
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)) / 5, "b": rng.standard_normal(4)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="stem", pads=[pads] * 4),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    return model(nodes, {"x": (kind, shape)}, {name: array.astype(dtype) for name, array in weights.items()})


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str] | None]],
    weights: dict[str, np.ndarray] | None = None,
    out: int = TensorProto.FLOAT,
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()],
        [helper.make_tensor_value_info("y", inputs.get("x", (out,))[0], None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


def run(net: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(net)
    onnx.checker.check_model(proto)
    [y] = ReferenceEvaluator(proto).run(None, {net.graph.inputs[0].name: x})
    return np.asarray(y)


def ops(net: ir.Model) -> list[str]:
    return [node.op_type for node in net.graph]


def meant(x: np.ndarray, mean: Any, std: Any, scale: Any) -> np.ndarray:
    """The formula, in float64, along axis 1."""
    mean, std, scale = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (mean, std, scale))
    return (x.astype(np.float64) * scale - mean) / std


def images(count: int = 2, size: int = 8) -> np.ndarray:
    x = np.random.default_rng(1).integers(0, 256, (count, 3, size, size)).astype(np.float32)
    x.setflags(write=False)
    return x


@pytest.mark.parametrize("pads", [0, 1])
def test_it_is_the_formula_and_folds_exactly(pads: int) -> None:
    net = conv_relu(pads=pads)
    before = ir.to_proto(net).SerializeToString(deterministic=True)
    whole, steps = insert(net, say(MEAN, STD, SCALE))
    assert ir.to_proto(net).SerializeToString(deterministic=True) == before, "the argument was changed"
    assert ops(whole) == ["Mul", "Add", "Conv", "Relu"]
    expected = run(net, meant(images(), MEAN, STD, SCALE).astype(np.float32))
    assert np.abs(run(whole, images()) - expected).max() <= 3e-6 * np.abs(expected).max()
    folded, plan = fold_model(whole)
    assert np.abs(run(folded, images()) - expected).max() <= 5e-6 * np.abs(expected).max()
    if pads:
        assert ops(folded) == ["Add", "Conv", "Relu"], "one operator is left, not two"
        added = folded.graph.initializers["x_normalised_add_constant"].const_value.numpy().reshape(-1)
        np.testing.assert_allclose(added, -255 * np.array(MEAN), rtol=1e-6)
        assert fate(steps, plan) == (
            f"preprocessing of input 'x': its scale folded; its shift stays as one Add ({ZERO_PAD})",
        )
    else:
        assert ops(folded) == ["Conv", "Relu"]
        assert fate(steps, plan) == ("preprocessing of input 'x': folded into stem",)
    again, plan = fold_model(folded)
    assert ops(again) == ops(folded)
    assert all(site.status == "kept" for site in plan.affines)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (say(mean=0.5), ["Add"]),
        (say(std=0.5), ["Mul"]),
        (say(scale=SCALE), ["Mul"]),
        (say(mean=0, std=1), []),
        (say(std=2, scale=2), []),
        (say(mean=(0, 0, 1)), ["Add"]),
    ],
)
def test_what_does_nothing_is_no_operator(said: Preprocessing, expected: list[str]) -> None:
    whole, steps = insert(conv_relu(pads=1), said)
    assert ops(whole)[:-2] == expected
    if not expected:
        assert fate(steps, fold_model(whole)[1]) == ("preprocessing of input 'x': changes nothing",)


def test_a_shift_that_stays_alone_is_said() -> None:
    whole, steps = insert(conv_relu(pads=1), say(mean=0.5))
    assert fate(steps, fold_model(whole)[1]) == (f"preprocessing of input 'x': stays as Add ({ZERO_PAD})",)


def test_channels_in_the_last_axis_are_found_and_followed() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="t", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"], name="stem"),
    ]
    weights = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32)}
    net = model(nodes, {"x": (TensorProto.FLOAT, (1, 8, 8, 3))}, weights)
    whole, _ = insert(net, say(MEAN, STD, SCALE))
    expected = run(net, meant(images(1), MEAN, STD, SCALE).astype(np.float32).transpose(0, 2, 3, 1))
    got = fold_model(whole)[0]
    assert ops(got) == ["Transpose", "Conv"]
    assert np.abs(run(got, images(1).transpose(0, 2, 3, 1)) - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_it_has_the_dtype_of_the_input(kind: int) -> None:
    net = conv_relu(kind=kind)
    whole, _ = insert(net, say(MEAN, STD, SCALE))
    x = images().astype(helper.tensor_dtype_to_np_dtype(kind))
    y = run(whole, x)
    assert y.dtype == x.dtype
    expected = run(net, meant(x, MEAN, STD, SCALE).astype(x.dtype)).astype(np.float64)
    assert np.abs(y - expected).max() <= (1e-2 if kind == TensorProto.FLOAT16 else 1e-12) * np.abs(expected).max()


def test_every_reader_reads_it_and_names_stay_apart() -> None:
    """Also a reader within a body of control flow; and a value that has our name already."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["inner"])], "body", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["outer"])], "other", [], [helper.make_tensor_value_info("outer", 1, None)]
    )
    nodes = [
        helper.make_node("If", ["which"], ["x_scaled"], name="if", then_branch=body, else_branch=other),
        helper.make_node("Add", ["x_scaled", "x"], ["y"], name="add"),
    ]
    net = model(nodes, {"x": (TensorProto.FLOAT, (2, 3, 4, 4)), "which": (TensorProto.BOOL, ())})
    whole, _ = insert(net, say(scale=2))
    x = images(2, 4)
    for which in (True, False):
        [expected] = ReferenceEvaluator(ir.to_proto(net)).run(None, {"x": 2 * x, "which": np.array(which)})
        for made in (whole, fold_model(whole)[0]):
            [got] = ReferenceEvaluator(ir.to_proto(made)).run(None, {"x": x, "which": np.array(which)})
            np.testing.assert_array_equal(got, expected)


def test_several_inputs_each_have_their_own() -> None:
    nodes = [helper.make_node("Add", ["x", "z"], ["y"], name="add")]
    net = model(nodes, dict.fromkeys(("x", "z"), (TensorProto.FLOAT, (1, 3, 4, 4))))
    whole, steps = insert(net, say(mean=["x:1,2,3", "z:5"], scale="z:2"))
    [y] = ReferenceEvaluator(ir.to_proto(whole)).run(None, {"x": images(1, 4), "z": images(1, 4)})
    np.testing.assert_array_equal(y, 3 * images(1, 4) - np.array([6, 7, 8], np.float32).reshape(3, 1, 1))
    assert [step.name for step in steps] == ["x", "z"]


def test_raw_inputs_are_those_that_it_takes_to_the_drawn_ones() -> None:
    whole, steps = insert(conv_relu(), say(MEAN, STD, SCALE))
    drawn = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    [x] = raw(steps, {"x": drawn}).values()
    assert x.dtype == np.float32
    assert 40 < x.std() < 80
    np.testing.assert_allclose(meant(x, MEAN, STD, SCALE), drawn, atol=1e-5)
    del whole


IMAGE = {"x": (TensorProto.FLOAT, ("N", 3, 8, 8))}
IDS = {"ids": (TensorProto.INT64, (1, 4))}


@pytest.mark.parametrize(
    ("inputs", "said", "what", "hint"),
    [
        (
            IMAGE | {"depth": (TensorProto.FLOAT, (1, 1, 8, 8))},
            say(mean=0.5),
            "--mean does not say which input it is for, and the model has 2 of floats: 'x', 'depth'",
            "Name it, like --mean x:0.5.",
        ),
        (
            IDS | {"mask": (TensorProto.BOOL, (1, 4))},
            say(scale=0.5),
            "--scale needs an input of floats, and the model has none: 'ids' is int64, 'mask' is bool",
            CAST,
        ),
        (
            {"x": (TensorProto.UINT8, (1, 3, 8, 8))},
            say(std=0.5),
            "--std needs an input of floats, and the model has none: 'x' is uint8",
            CAST,
        ),
        (IMAGE | IDS, say(mean="ids:1"), "--mean names 'ids', which is int64", CAST),
        (
            IMAGE | IDS,
            say(mean="img:1"),
            "--mean names 'img', and the model's inputs are x, ids",
            "Use one of those names.",
        ),
        (IMAGE, say(std=["1", "x:2"]), "--std is given twice for input 'x'", "Give it once."),
        (IMAGE, say(mean=MEAN, std=(1, 2, 3, 4)), "--mean has 3 values, and --std has 4", EACH),
        (
            IMAGE,
            say(mean=(1, 2)),
            "--mean has 2 values, and input 'x' (?x3x8x8) does not have as many channels, in axis 1 or in the last one",
            EACH,
        ),
        (
            {"x": (TensorProto.FLOAT, ("N", "C", 8, 3))},
            say(mean=MEAN),
            "--mean has 3 values, and input 'x' (?x?x8x3) does not have as many channels, in axis 1 or in the last one",
            EACH,
        ),
        (
            {"x": (TensorProto.FLOAT16, (1, 3, 8, 8))},
            say(mean=1e6),
            "--mean, --std and --scale make a factor or a shift that float16, the type of input 'x', cannot hold",
            "Use numbers nearer to 1, or export the model in float32.",
        ),
        (
            IMAGE,
            say(scale=1e-60),
            "--mean, --std and --scale make a factor or a shift that float32, the type of input 'x', cannot hold",
            "Use numbers nearer to 1, or export the model in float32.",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_said(inputs: Any, said: Preprocessing, what: str, hint: str) -> None:
    first = next(iter(inputs))
    net = model([helper.make_node("Identity", [first], ["y"])], inputs, out=inputs[first][0])
    with pytest.raises(UsageError) as caught:
        insert(net, said)
    assert (caught.value.what, caught.value.hint) == (what, hint)


def test_it_goes_all_the_way(tmp_path: Path) -> None:
    """What is checked is the model with its preprocessing, on images and not on noise around 0."""
    onnx.save(tiny.conv_bn(), tmp_path / "net.onnx")
    report = convert(tmp_path / "net.onnx", mean=MEAN, std=STD, scale=SCALE)
    assert report.passed
    assert report.notes == (f"preprocessing of input 'x': its scale folded; its shift stays as one Add ({ZERO_PAD})",)
    assert report.operators_before == {"Mul": 1, "Add": 1, "Conv": 1, "BatchNormalization": 1, "Relu": 1}
    assert report.operators_after == {"Add": 1, "Conv": 1, "Relu": 1}
    x = np.random.default_rng(1).integers(0, 256, (2, 3, 6, 6)).astype(np.float32)
    [expected] = ReferenceEvaluator(tiny.conv_bn()).run(None, {"x": meant(x, MEAN, STD, SCALE).astype(np.float32)})
    [got] = ReferenceEvaluator(onnx.load(tmp_path / "net.folded.onnx")).run(None, {"x": x})
    assert np.abs(got - expected).max() <= 5e-6 * np.abs(expected).max()
    planned = inspect(tmp_path / "net.onnx", mean="0.485,0.456,0.406", std=list(STD), scale="1/255")
    assert (planned.notes, planned.plan) == (report.notes, report.plan)


def test_the_check_sees_a_preprocessing_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bnfold.frontends.onnx as frontend

    right = frontend.fold_model

    def wrong(net: ir.Model, *choices: Any, **how: Any) -> Any:
        folded, plan = right(net, *choices, **how)
        value = folded.graph.initializers["x_normalised_add_constant"]
        value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(1.001), name=value.name)
        return folded, plan

    monkeypatch.setattr(frontend, "fold_model", wrong)
    onnx.save(tiny.conv_bn(), tmp_path / "net.onnx")
    assert not convert(tmp_path / "net.onnx", mean=MEAN, std=STD, scale=SCALE).passed
