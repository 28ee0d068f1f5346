"""Bounds on results of constants hold for what the operators make, and are not far above it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from bnfold.frontends.growth import result_size

A, B = np.ones((2, 3), np.float32), np.ones((4, 1, 3), np.float32)


def node(op: str, count: int, **attributes: Any) -> ir.Node:
    return ir.node(op, [ir.Value(name=f"x{i}") for i in range(count)], attributes=attributes)


@pytest.mark.parametrize(
    ("op", "arrays", "attributes"),
    [
        ("Add", (A, B), {}),
        ("Where", (A > 0, A, B), {}),
        ("Sqrt", (A,), {}),
        ("Expand", (A, np.array([5, 2, 1])), {}),
        ("Tile", (A, np.array([3, 2])), {}),
        ("ConstantOfShape", (np.array([2, 5, 3]),), {}),
        ("Range", (np.float32(0), np.float32(7), np.float32(2)), {}),
        ("Concat", (A, A), {"axis": 0}),
        ("Gather", (A, np.array([[0, 1, 0], [1, 1, 1]])), {"axis": 0}),
        ("GatherND", (A, np.array([[0], [1], [0]])), {}),
        ("MatMul", (A, A.T), {}),
        ("MatMul", (B, np.ones((4, 3, 5), np.float32)), {}),
        ("MatMul", (A, np.ones(3, np.float32)), {}),
        ("Gemm", (A, A), {"transB": 1}),
        ("Pad", (A, np.array([1, 0, 2, 0])), {}),
        ("OneHot", (np.array([1, 2]), np.array(5), np.array([0.0, 1.0])), {}),
        ("NonZero", (A,), {}),
        ("Transpose", (A,), {}),
        ("ReduceSum", (A,), {"keepdims": 0}),
    ],
)
def test_a_bound_holds_and_is_near(op: str, arrays: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    arrays = tuple(np.asarray(array) for array in arrays)
    made = node(op, len(arrays), **attributes)
    bound = result_size(made, arrays)
    made.outputs[0].name = "y"
    [result] = ReferenceEvaluator(ir.serde.serialize_node(made), opsets={"": 18}).run(
        None, {f"x{i}": array for i, array in enumerate(arrays)}
    )
    assert bound is not None
    assert np.asarray(result).size <= bound <= 12 * max(np.asarray(result).size, 1)


@pytest.mark.parametrize("op", ["Conv", "Resize", "Einsum", "HannWindow", "Unknown"])
def test_what_grows_by_its_attributes_has_no_bound(op: str) -> None:
    assert result_size(node(op, 1), (A,)) is None


def test_operands_that_do_not_fit_have_no_bound() -> None:
    assert result_size(node("Add", 2), (A, np.ones((2, 4)))) is None
    assert result_size(node("Expand", 2), (A, np.array([2, 4]))) is None
    assert result_size(node("Range", 3), (np.float32(0), np.float32(1), np.float32(0))) is None


def test_a_product_counts_its_inner_size() -> None:
    long = np.ones((1, 10**5), np.float32)
    assert result_size(node("MatMul", 2), (long, long.T)) == 10**5 // 64
