from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir
import pytest

from bnfold.data.feeds import InputDecl, make_feeds, model_inputs
from bnfold.errors import BnfoldError, UnsupportedError, UsageError
from bnfold.specs import InputSpec

FLOAT, INT64 = onnx_ir.DataType.FLOAT, onnx_ir.DataType.INT64


def value(name: str, shape: Sequence[int | str | None] | None, dtype: onnx_ir.DataType = FLOAT) -> onnx_ir.Value:
    return onnx_ir.Value(
        name=name, type=onnx_ir.TensorType(dtype), shape=None if shape is None else onnx_ir.Shape(shape)
    )


def model(*inputs: onnx_ir.Value, overridable: Sequence[onnx_ir.Value] = ()) -> onnx_ir.Model:
    node = onnx_ir.node("Identity", [inputs[0]])
    for initializer in overridable:
        initializer.const_value = onnx_ir.tensor(np.zeros(2, np.float32), name=initializer.name)
    graph = onnx_ir.Graph(
        [*inputs, *overridable], node.outputs, nodes=[node], initializers=overridable, opset_imports={"": 20}
    )
    return onnx_ir.Model(graph, ir_version=10)


def refusal(raises: type[BnfoldError], call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(raises) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def shapes(feeds: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feeds.items()}


def test_declared_inputs_with_open_dimensions() -> None:
    declared = model_inputs(model(value("x", ["batch", 3, None]), value("ids", [2], INT64)))
    assert declared == (
        InputDecl("x", (None, 3, None), "float32", ("batch", None, None)),
        InputDecl("ids", (2,), "int64", (None,)),
    )


def test_an_overridable_initializer_is_not_fed() -> None:
    opened = model(value("x", ["batch"]), overridable=[value("w", [2])])
    assert [declared.name for declared in model_inputs(opened)] == ["x"]


def test_an_input_without_a_rank_cannot_be_fed() -> None:
    assert refusal(UnsupportedError, model_inputs, model(value("x", None))) == (
        "error[UNSUPPORTED]: input 'x' has no declared tensor type and shape\n"
        "Give the input a tensor type of known rank in the ONNX file."
    )


def test_strings_cannot_be_fed() -> None:
    assert refusal(UnsupportedError, model_inputs, model(value("x", [1], onnx_ir.DataType.STRING))) == (
        "error[UNSUPPORTED]: input 'x' is a tensor of strings\nOnly numbers and booleans are fed."
    )


def test_the_open_first_dimension_is_the_batch() -> None:
    opened = model(value("x", ["batch", 3]), value("y", [None, 4]))
    assert shapes(make_feeds(opened, batch=5, seed=0)) == {"x": (5, 3), "y": (5, 4)}


def test_a_fixed_batch_wins() -> None:
    assert shapes(make_feeds(model(value("x", [2, 3])), batch=5, seed=0)) == {"x": (2, 3)}


def test_a_spec_fills_other_open_dimensions_and_leaves_the_batch_alone() -> None:
    opened = model(value("x", ["batch", 3, "height", "width"]))
    feeds = make_feeds(opened, batch=5, seed=0, specs=[InputSpec(None, (1, 3, 8, 9))])
    assert shapes(feeds) == {"x": (5, 3, 8, 9)}


def test_a_dimension_of_the_same_name_has_the_same_size_in_every_input() -> None:
    opened = model(value("x", ["batch", "len"]), value("mask", ["len", "batch"]))
    feeds = make_feeds(opened, batch=5, seed=0, specs=[InputSpec("x", (1, 7))])
    assert shapes(feeds) == {"x": (5, 7), "mask": (7, 5)}


def test_an_open_dimension_nobody_knows_is_asked_for() -> None:
    assert refusal(UsageError, make_feeds, model(value("x", ["batch", 3, None])), batch=1, seed=0) == (
        "error[USAGE]: dimension 2 of input 'x' (?x3x?) is open\n"
        "Pass its shape, e.g. --input x:1x3xN with numbers for N."
    )


def test_specs_are_matched_by_name_then_in_order() -> None:
    opened = model(value("x", [None, None]), value("y", [None, None]))
    specs = [InputSpec("x", (1, 2)), InputSpec(None, (1, 3))]
    assert shapes(make_feeds(opened, batch=1, seed=0, specs=specs)) == {"x": (1, 2), "y": (1, 3)}


def test_a_spec_for_an_unknown_input() -> None:
    call = {"batch": 1, "seed": 0, "specs": [InputSpec("z", (1, 3))]}
    assert refusal(UsageError, make_feeds, model(value("x", [None, 3])), **call) == (
        "error[USAGE]: --input names 'z', and the model's inputs are x\nUse one of those names."
    )


def test_too_many_specs() -> None:
    call = {"batch": 1, "seed": 0, "specs": [InputSpec(None, (1, 3))] * 2}
    assert refusal(UsageError, make_feeds, model(value("x", [None, 3])), **call) == (
        "error[USAGE]: 2 --input were given, and the model has 1: x\nGive at most one shape per input."
    )


def test_one_input_named_twice() -> None:
    call = {"batch": 1, "seed": 0, "specs": [InputSpec("x", (1, 3))] * 2}
    assert refusal(UsageError, make_feeds, model(value("x", [None, 3])), **call) == (
        "error[USAGE]: --input names 'x' twice\nGive each input one shape."
    )


def test_a_spec_that_disagrees_with_the_model_names_both_shapes() -> None:
    call = {"batch": 1, "seed": 0, "specs": [InputSpec(None, (1, 4))]}
    assert refusal(UsageError, make_feeds, model(value("x", [None, 3])), **call) == (
        "error[USAGE]: input 'x' is ?x3, and --input has 1x4\nPass a shape that agrees with the model's."
    )


def test_a_spec_with_another_dtype() -> None:
    call = {"batch": 1, "seed": 0, "specs": [InputSpec(None, (1, 3), "float16")]}
    assert refusal(UsageError, make_feeds, model(value("x", [None, 3])), **call) == (
        "error[USAGE]: --input says 'x' is float16, and the model declares float32\n"
        "Leave the dtype out, or use the model's."
    )


def test_equal_seeds_draw_equal_values_and_others_do_not() -> None:
    opened = model(value("x", [None, 3]))
    first, second, other = (make_feeds(opened, batch=2, seed=seed)["x"] for seed in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_data_is_used_as_it_is_and_decides_the_batch_of_the_rest() -> None:
    opened = model(value("x", [None, 2]), value("y", [None, 3]))
    data = np.arange(8, dtype=np.float32).reshape(4, 2)
    feeds = make_feeds(opened, batch=1, seed=0, data={"x": data})
    assert np.array_equal(feeds["x"], data)
    assert feeds["y"].shape == (4, 3)


def test_data_is_cut_to_a_fixed_batch_and_takes_the_declared_float_width() -> None:
    data = np.arange(8, dtype=np.float64).reshape(4, 2)
    feeds = make_feeds(model(value("x", [3, 2])), batch=1, seed=0, data={"x": data})
    assert feeds["x"].shape == (3, 2)
    assert feeds["x"].dtype == np.float32


def test_floats_are_not_squeezed_into_integers() -> None:
    call = {"batch": 1, "seed": 0, "data": {"x": np.ones(2, np.float32)}}
    assert refusal(UsageError, make_feeds, model(value("x", [2], INT64)), **call) == (
        "error[USAGE]: input 'x' is int64, and the data given is float32\nConvert the data to int64."
    )


def test_data_that_does_not_fit_names_both_shapes() -> None:
    call = {"batch": 1, "seed": 0, "data": {"x": np.ones((4, 5), np.float32)}}
    assert refusal(UsageError, make_feeds, model(value("x", [None, 2])), **call) == (
        "error[USAGE]: input 'x' is ?x2, and the data given has 4x5\nPass a shape that agrees with the model's."
    )
