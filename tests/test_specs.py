from __future__ import annotations

import pytest

from bnfold.errors import UsageError
from bnfold.specs import DynamicDim, InputSpec, parse_dynamic, parse_input


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
        f"error[USAGE]: --input {text!r} is not [NAME:]SHAPE[:DTYPE]\n"
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
