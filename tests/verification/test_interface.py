"""What a caller would notice of two models before running them, and the advice that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from bnfold.verification.interface import (
    OTHER_INPUTS,
    OTHER_OUTPUTS,
    Declared,
    interface_advice,
    interface_differences,
)

IMAGE: Declared = ("float32", (None, 3, 6, 6))
SCORES: Declared = ("float32", (None, 10))


def model(inputs: Mapping[str, Declared] | None = None, outputs: Mapping[str, Declared] | None = None) -> Any:
    return SimpleNamespace(inputs={"x": IMAGE} if inputs is None else inputs, outputs=outputs or {"y": SCORES})


@pytest.mark.parametrize(
    "after",
    [model(), model({"x": ("float32", None)}), model(outputs={"y": ("float32", (1, 10))})],
    ids=["the same", "nothing declared", "an output of which more is known"],
)
def test_what_a_caller_does_not_notice_is_no_difference(after: Any) -> None:
    assert interface_differences(model(), after) == ()


def test_a_dimension_may_become_open() -> None:
    assert interface_differences(model({"x": ("float32", (1, 3, 6, 6))}), model()) == ()


FIXED = (
    "Dimension 0 of 'x' is open before and fixed at 1 after: export the model after with it open, or that before with "
    "it fixed."
)


@pytest.mark.parametrize(
    ("after", "said", "advice"),
    [
        (model({"input": IMAGE}), ("input 'x' is missing after", "input 'input' is new after"), OTHER_INPUTS),
        (model({"x": IMAGE, "z": IMAGE}), ("input 'z' is new after",), OTHER_INPUTS),
        (
            model({"x": ("float32", (None, 1, 6, 6))}),
            ("input 'x': its shape is ?×3×6×6 before and ?×1×6×6 after",),
            OTHER_INPUTS,
        ),
        (
            model({"x": ("float32", (1, 1, 6, 6))}),
            ("input 'x': its shape is ?×3×6×6 before and 1×1×6×6 after",),
            OTHER_INPUTS,
        ),
        (model({"x": ("float16", (None, 3, 6, 6))}), ("input 'x': its type is float32 before and float16 after",),
         OTHER_INPUTS),
        (model({"x": ("float32", (1, 3, 6, 6))}), ("input 'x': its shape is ?×3×6×6 before and 1×3×6×6 after",), FIXED),
        (
            model(outputs={"z": SCORES}),
            ("output 'y' is missing after", "output 'z' is new after"),
            OTHER_OUTPUTS,
        ),
        (
            model(outputs={"y": ("float32", (None, 9))}),
            ("output 'y': its shape is ?×10 before and ?×9 after",),
            OTHER_OUTPUTS,
        ),
    ],
)  # fmt: skip
def test_what_differs_is_said_with_what_to_do(after: Any, said: tuple[str, ...], advice: str) -> None:
    assert interface_differences(model(), after) == said
    assert interface_advice(model(), after) == advice


def test_the_order_of_inputs_counts() -> None:
    before, after = model({"a": IMAGE, "b": IMAGE}), model({"b": IMAGE, "a": IMAGE})
    assert interface_differences(before, after) == (
        "the inputs are in the order ['a', 'b'] before and ['b', 'a'] after",
    )
    assert interface_advice(before, after) == OTHER_INPUTS
