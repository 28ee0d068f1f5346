"""Accuracy of two models on the same rows, against counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.data.datasets import open_dataset
from bnfold.errors import UsageError
from bnfold.evaluation.accuracy import accuracy
from bnfold.evaluation.metrics import read_metric

CLASSES = 4
W = np.random.default_rng(0).standard_normal((5, CLASSES)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((203, 5)).astype(np.float32)
Y = np.random.default_rng(2).integers(0, CLASSES, 203)


def linear(weight: np.ndarray, *, batch: int | str = "N") -> onnx.ModelProto:
    """x[N, 5] · weight → y[N, classes]."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, weight.shape[1]))],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def measure(before: object, after: object, metric: object = "top1", rows: int = 64):  # type: ignore[no-untyped-def]
    data = open_dataset([(X[i : i + rows], Y[i : i + rows]) for i in range(0, len(X), rows)])
    return accuracy(before, after, data, read_metric(metric))


def test_a_model_and_itself() -> None:
    found = measure(linear(W), linear(W))
    assert (found.n, found.delta, found.agreement, found.changed, found.lost, found.gained) == (203, 0, 1, 0, 0, 0)
    assert found.p == 1


@pytest.mark.parametrize("batch", ["N", 1, 50])
def test_every_count_is_what_counting_gives(batch: int | str) -> None:
    other = W + np.float32(0.3) * np.random.default_rng(3).standard_normal(W.shape).astype(np.float32)
    found = measure(linear(W, batch=batch), linear(other, batch=batch))
    before, after = (X @ W).argmax(1), (X @ other).argmax(1)
    assert found.before == pytest.approx((before == Y).mean())
    assert found.after == pytest.approx((after == Y).mean())
    assert found.changed == (before != after).sum() > 0
    assert found.agreement == pytest.approx((before == after).mean())
    assert found.lost == ((before == Y) & (after != Y)).sum()
    assert found.gained == ((before != Y) & (after == Y)).sum()
    assert found.low < found.delta < found.high
    assert found.ties == 0


def test_a_class_that_float_noise_decides_is_a_tie_and_one_that_a_weight_decides_is_not() -> None:
    twins = W.copy()
    twins[:, 1] = twins[:, 0]
    nudged = twins.copy()
    nudged[:, 1] += np.float32(1e-6) * np.sign(X[0])
    found = measure(linear(twins), linear(nudged))
    assert found.changed > 0
    assert found.ties == found.changed
    wrong = twins.copy()
    wrong[:, 2] *= 3
    assert measure(linear(twins), linear(wrong)).ties < measure(linear(twins), linear(wrong)).changed


def test_the_public_function_takes_paths_and_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    found = bnfold.accuracy(linear(W), linear(W), tmp_path / "d.npz", "top5")
    assert (found.metric, found.n, found.before) == ("top5", 203, 1)


def test_a_third_model_is_only_measured() -> None:
    data = open_dataset([(X, Y)])
    third = np.roll(W, 1, axis=1)
    found = accuracy(linear(W), linear(W), data, read_metric("top1"), folded_only=linear(third))
    assert found.folded_only == pytest.approx(((X @ third).argmax(1) == Y).mean())
    assert found.delta == 0


def test_a_module_beside_onnx() -> None:
    module = torch.nn.Linear(5, CLASSES, bias=False).eval()
    module.weight.data = torch.from_numpy(W.T.copy())
    found = measure(linear(W), module)
    assert (found.agreement, found.delta) == (1, 0)


def test_ones_own_metric_has_no_predictions() -> None:
    found = measure(linear(W), linear(2 * W), lambda output, y: output.max(axis=1))
    assert found.after == pytest.approx(2 * found.before)
    assert found.agreement is None
    assert found.p is None
    assert found.to_dict()["changed"] is None


def test_a_score_of_right_and_wrong_is_tested_like_one() -> None:
    found = measure(linear(W), linear(-W), lambda output, y: output.argmax(axis=1) == y)
    same = measure(linear(W), linear(-W))
    assert (found.lost, found.gained, found.p) == (same.lost, same.gained, same.p)


def test_models_with_other_classes() -> None:
    with pytest.raises(UsageError, match="the models do not have the same number of classes"):
        measure(linear(W), linear(np.concatenate([W, W], axis=1)), "top5")


def test_data_without_labels() -> None:
    with pytest.raises(UsageError) as caught:
        accuracy(linear(W), linear(W), open_dataset([X]), read_metric("top1"))
    assert caught.value.what == "the loader has no labels, which a metric needs"
