from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bnfold.errors import UsageError
from bnfold.specs import InputSpec, parse_dynamic, parse_input
from bnfold.tracing.examples import Example, make_example, open_dims, try_out

HOW = "Pass the shape the network was trained with, e.g. --input 1x3x224x224."


class Two(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return x + y * scale


class Many(nn.Module):
    def forward(self, *parts: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        return sum((*parts, *named.values()))  # type: ignore[return-value]


def example(module: nn.Module, *inputs: str, data: Any = None) -> Example:
    return make_example(module, [parse_input(text) for text in inputs], data, 0)


def shapes(made: Example) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in made.tensors().items()}


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_shapes_in_order_and_by_name() -> None:
    assert shapes(example(Two(), "1x2", "1x3")) == {"x": (1, 2), "y": (1, 3)}
    assert shapes(example(Two(), "y:1x3", "1x2")) == {"x": (1, 2), "y": (1, 3)}


def test_variable_arguments_are_numbered() -> None:
    made = example(Many(), "1x2", "1x2")
    assert shapes(made) == {"parts_0": (1, 2), "parts_1": (1, 2)}
    try_out(Many(), made)


def test_the_networks_own_dtype_is_the_default() -> None:
    assert example(nn.Linear(2, 2).half(), "1x2").tensors()["input"].dtype == torch.float16
    assert example(nn.Linear(2, 2).bfloat16(), "1x2").tensors()["input"].dtype == torch.bfloat16
    assert example(nn.Embedding(9, 2).half(), "1x2:int64").tensors()["input"].dtype == torch.int64
    assert example(nn.ReLU(), "1x2").tensors()["input"].dtype == torch.float32


def test_the_seed_decides_the_values() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return make_example(nn.ReLU(), [InputSpec(None, (4, 4))], None, seed).tensors()["input"]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (torch.zeros(1, 2), {"x": (1, 2)}),
        (np.zeros((1, 2)), {"x": (1, 2)}),
        ((torch.zeros(1, 2), torch.zeros(1, 3)), {"x": (1, 2), "y": (1, 3)}),
        ({"y": torch.zeros(1, 3), "x": torch.zeros(1, 2)}, {"x": (1, 2), "y": (1, 3)}),
        (({"a": torch.zeros(1, 2), "b": [torch.zeros(1, 3)]},), {"x_a": (1, 2), "x_b_0": (1, 3)}),
    ],
)
def test_example_input_array_in_every_form(own: Any, expected: dict[str, tuple[int, ...]]) -> None:
    class Module(nn.Module):
        def forward(self, x: Any, y: Any = None) -> Any:
            return x

    module = Module()
    module.example_input_array = own
    assert shapes(make_example(module, [], None, 0)) == expected


def test_what_the_user_says_goes_before_the_example_input_array() -> None:
    module = nn.ReLU()
    module.example_input_array = torch.zeros(1, 2)
    assert shapes(example(module, "1x5")) == {"input": (1, 5)}


@pytest.mark.parametrize("name", ["pretrained_cfg", "default_cfg"])
def test_timm_knows_its_input_size(name: str) -> None:
    module = nn.ReLU()
    setattr(module, name, {"input_size": (3, 8, 8)})
    assert shapes(example(module)) == {"input": (1, 3, 8, 8)}


def test_data_is_the_example_and_shapes_complete_it() -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    made = example(Two(), "y:3x2", data={"x": x})
    assert np.array_equal(made.tensors()["x"].numpy(), x)
    assert shapes(made) == {"x": (3, 2), "y": (3, 2)}
    assert shapes(example(nn.ReLU(), data=x)) == {"input": (3, 2)}


def test_no_example_at_all_says_what_to_pass() -> None:
    assert refusal(example, Two()) == f"error[USAGE]: the network does not say what its input looks like\n{HOW}"


def test_too_few_and_too_many_inputs() -> None:
    hint = "Pass one --input per parameter, in order or as NAME:SHAPE."
    assert refusal(example, Two(), "1x2") == (
        "error[USAGE]: forward(x, y, scale) was given 1 unnamed inputs and no named ones: "
        f"TypeError: missing a required argument: 'y'\n{hint}"
    )
    assert refusal(example, Two(), "x:1x2", "y:1x2", "z:1x2") == (
        "error[USAGE]: forward(x, y, scale) was given 0 unnamed inputs and those named 'x', 'y', 'z': "
        f"TypeError: got an unexpected keyword argument 'z'\n{hint}"
    )


def test_a_wrong_shape_is_named_with_what_the_network_said() -> None:
    made = example(nn.Linear(4, 2), "1x5")
    assert refusal(try_out, nn.Linear(4, 2), made) == (
        "error[USAGE]: the network does not take input 1x5 float32: "
        f"RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x5 and 4x2)\n{HOW}"
    )


def test_the_batch_is_open_in_every_input_that_shares_it() -> None:
    made = example(Many(), "2x3", "2x5", "7", "[]")
    assert open_dims(made, []) == {"parts_0": {0: "batch"}, "parts_1": {0: "batch"}}


def test_named_dimensions_are_open_too() -> None:
    made = example(Two(), "1x3", "1x3")
    assert open_dims(made, [parse_dynamic("x:1=len"), parse_dynamic("y:0=n")]) == {
        "x": {0: "batch", 1: "len"},
        "y": {0: "n"},
    }


def test_a_dimension_that_does_not_exist() -> None:
    made = example(Two(), "1x3", "1x3")
    assert refusal(open_dims, made, [parse_dynamic("z:0=n")]) == (
        "error[USAGE]: --dynamic names 'z', and the network's inputs are 'x', 'y'\nUse one of those names."
    )
    assert refusal(open_dims, made, [parse_dynamic("x:2=n")]) == (
        "error[USAGE]: --dynamic names dimension 2 of 'x', which has 2\nDimensions are counted from 0."
    )


def test_open_dimensions_of_size_one_are_stretched_in_a_copy() -> None:
    made = example(Two(), "1x3", "5x1")
    stretched = made.stretched({"x": {0: "batch"}, "y": {0: "n", 1: "len"}})
    assert shapes(stretched) == {"x": (2, 3), "y": (5, 2)}
    assert shapes(made) == {"x": (1, 3), "y": (5, 1)}
