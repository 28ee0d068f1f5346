from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnfold.errors import UsageError
from bnfold.specs import DynamicDim, InputSpec, parse_dynamic, parse_input, parse_values
from bnfold.wording import one_line


@pytest.mark.parametrize(
    ("text", "name", "shape", "dtype"),
    [
        ("1x3x224x224", None, (1, 3, 224, 224), None),
        ("1,3,224,224", None, (1, 3, 224, 224), None),
        ("[1,3,224,224]", None, (1, 3, 224, 224), None),
        ("[1, 3, 224, 224]", None, (1, 3, 224, 224), None),
        ("1×3×8", None, (1, 3, 8), None),
        ("7", None, (7,), None),
        ("[]", None, (), None),
        ("x:1x3", "x", (1, 3), None),
        ("1x3:float16", None, (1, 3), "float16"),
        ("ids:[1,128]:int64", "ids", (1, 128), "int64"),
        ("input:0:1x3:float32", "input:0", (1, 3), "float32"),
        ("x:bfloat16", None, (), ""),
        ("input:0", None, (), ""),
    ],
)
def test_every_way_to_write_an_input(text: str, name: str | None, shape: tuple[int, ...], dtype: str | None) -> None:
    if dtype == "":
        with pytest.raises(UsageError):
            parse_input(text)
        return
    assert parse_input(text) == InputSpec(name, shape, dtype)


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1x3,4", "[1,3", "1,3]", "-1x3", "1x3:floaty", "1x3xHxW", "1.5", "x:", ":", "9" * 5000]
)
def test_what_does_not_read_as_an_input_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_input(text)
    assert str(caught.value) == (
        f"error[USAGE]: {one_line(f'--input {text!r} is not [NAME:]SHAPE[:DTYPE]')}\n"
        "Write it like 1x3x224x224, x:1,3,224,224 or ids:[1,128]:int64."
    )


def test_an_empty_dimension_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        parse_input("0x3")
    assert str(caught.value) == (
        "error[USAGE]: --input '0x3' has a dimension of 0\nGive every dimension a size of at least 1."
    )


def test_dynamic_dimensions() -> None:
    assert parse_dynamic("x:0=batch") == DynamicDim("x", 0, "batch")
    assert parse_dynamic("input:0:2=len") == DynamicDim("input:0", 2, "len")


@pytest.mark.parametrize("text", ["", "x", "x:0", "0=batch", "x:a=batch", "x:0=", "x:0=2", "x:-1=batch"])
def test_what_does_not_read_as_a_dynamic_dimension(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_dynamic(text)
    assert str(caught.value) == (
        f"error[USAGE]: --dynamic {text!r} is not NAME:AXIS=SYMBOL\n"
        "Write it like x:0=batch: the input's name, the dimension's number, a name for it."
    )


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (None, {}),
        ([], {}),
        (0.5, {None: (0.5,)}),
        ((0.485, 0.456, 0.406), {None: (0.485, 0.456, 0.406)}),
        (np.array([1, 2], np.float32), {None: (1.0, 2.0)}),
        ("0.485,0.456, 0.406", {None: (0.485, 0.456, 0.406)}),
        ("-1e-3", {None: (-0.001,)}),
        (["1/255"], {None: (1 / 255,)}),
        (["1,2", "depth:3"], {None: (1.0, 2.0), "depth": (3.0,)}),
        ("input:0:0.5", {"input:0": (0.5,)}),
        ({"a": 1, "b": (2, 3)}, {"a": (1.0,), "b": (2.0, 3.0)}),
    ],
)
def test_every_way_to_give_values_per_channel(given: Any, values: dict[str | None, tuple[float, ...]]) -> None:
    assert parse_values("mean", given) == values


@pytest.mark.parametrize("given", ["", "x", "1,,2", "1;2", "1,2,", "1/0", "nan", "inf", "1e999", "x:", "1:2x"])
def test_what_does_not_read_as_values_says_how_to_write_them(given: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_values("std", [given])
    assert str(caught.value).startswith("error[USAGE]: --std ")
    assert str(caught.value).endswith(
        " is not [NAME:]NUMBER,NUMBER,...\n"
        "Write it like 0.485,0.456,0.406, one number per channel, a single 0.5 for all, or image:0.5 for one input."
    )


@pytest.mark.parametrize("given", [(), np.zeros(0), {"x": ()}, {"x": "a"}, [1, None], float("nan"), [[1, 2]]])
def test_what_is_no_list_of_numbers_is_refused_from_python_too(given: Any) -> None:
    if isinstance(given, tuple):
        assert parse_values("mean", given) == {}
        return
    with pytest.raises(UsageError, match="is not \\[NAME:\\]NUMBER"):
        parse_values("mean", given)


@pytest.mark.parametrize(
    ("flag", "given", "message"),
    [
        (
            "std",
            "0.2,0,0.2",
            "error[USAGE]: --std has a 0, and is divided by\nPass the standard deviations of the training data.",
        ),
        (
            "scale",
            "x:0",
            "error[USAGE]: --scale has a 0, which makes every input the same\nPass a factor, like 1/255.",
        ),
        (
            "mean",
            ["1", "2"],
            "error[USAGE]: --mean is given twice\nGive it once, as NUMBER,NUMBER,..., one per channel.",
        ),
        (
            "mean",
            ["x:1", "x:2"],
            "error[USAGE]: --mean is given twice for input 'x'\nGive it once, as NUMBER,NUMBER,..., one per channel.",
        ),
    ],
)
def test_values_that_cannot_be_meant(flag: str, given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_values(flag, given)
    assert str(caught.value) == message


def test_a_mean_of_zero_is_fine() -> None:
    assert parse_values("mean", "0,0,0") == {None: (0.0, 0.0, 0.0)}
