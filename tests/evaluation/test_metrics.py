"""Metrics against their definition, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnfold.errors import UsageError
from bnfold.evaluation.metrics import read_metric

LOGITS = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 8, 40)
LOGITS.setflags(write=False)


@pytest.mark.parametrize(("name", "k"), [("top1", 1), ("top5", 5)])
def test_a_row_is_right_when_its_label_is_among_the_k_largest(name: str, k: int) -> None:
    scored = read_metric(name).score({"y": LOGITS}, LABELS, 40)
    for row, label, score in zip(LOGITS, LABELS, scored.scores, strict=True):
        assert score == (sorted(row)[::-1].index(row[label]) < k)
    ranked = np.sort(LOGITS.astype(np.float64), axis=1)[:, ::-1]
    np.testing.assert_array_equal(scored.margins, ranked[:, k - 1] - ranked[:, k])


def test_of_equal_outputs_the_first_is_taken() -> None:
    scored = read_metric("top1").score({"y": np.zeros((2, 3), np.float32)}, np.array([0, 1]), 2)
    np.testing.assert_array_equal(scored.scores, [1, 0])
    np.testing.assert_array_equal(scored.margins, [0, 0])


def test_a_row_with_nan_is_wrong() -> None:
    logits = np.array([[np.nan, 1.0], [0.0, 1.0]])
    np.testing.assert_array_equal(read_metric("top1").score({"y": logits}, np.array([1, 1]), 2).scores, [0, 1])


def test_top5_of_three_classes_is_always_right() -> None:
    scored = read_metric("top5").score({"y": LOGITS[:, :3]}, LABELS % 3, 40)
    assert scored.scores.all()
    assert scored.margins is not None
    assert np.isinf(scored.margins).all()


def test_rows_that_fill_up_a_batch_do_not_count() -> None:
    assert len(read_metric("top1").score({"y": LOGITS}, LABELS[:3], 3).scores) == 3


def test_an_output_with_positions_of_one_counts_and_the_first_that_fits_is_taken() -> None:
    outputs = {"features": LOGITS.reshape(40, 2, 4), "y": LOGITS[:, :, None, None]}
    expected = read_metric("top1").score({"y": LOGITS}, LABELS, 40)
    np.testing.assert_array_equal(read_metric("top1").score(outputs, LABELS, 40).scores, expected.scores)


def test_ones_own_function() -> None:
    per_row = read_metric(lambda output, y: np.abs(output[:, 0] - y))
    scored = per_row.score({"y": LOGITS}, LABELS, 40)
    np.testing.assert_allclose(scored.scores, np.abs(LOGITS[:, 0] - LABELS))
    assert not scored.binary
    mean = read_metric(lambda output, y: np.mean(output["b"]))
    np.testing.assert_allclose(mean.score({"a": LOGITS, "b": LOGITS}, LABELS, 40).scores, np.full(40, LOGITS.mean()))


@pytest.mark.parametrize(
    ("metric", "outputs", "labels", "what"),
    [
        ("top1", LOGITS, np.full(40, 8), "a label is 8, and the model has the classes 0 to 7"),
        ("top1", LOGITS, np.full(40, -1), "a label is -1, and the model has the classes 0 to 7"),
        ("top1", LOGITS, np.full(40, 0.5), "the labels are float64 of 40, and a class is one whole number per row"),
        ("top1", LOGITS, np.eye(40), "the labels are float64 of 40x40, and a class is one whole number per row"),
        ("top1", LOGITS[:, :1], LABELS, "--metric top1 needs an output of rows × classes, two or more: 'y' is 40x1"),
        (
            "top5",
            LOGITS.reshape(40, 2, 2, 2),
            LABELS,
            "--metric top5 needs an output of rows × classes, two or more: 'y' is 40x2x2x2",
        ),
        (max, LOGITS, LABELS, None),
        (lambda output, y: np.ones(3), LOGITS, LABELS, "--metric <lambda> returned 3 for 40 rows"),
        (lambda output, y: np.nan, LOGITS, LABELS, "--metric <lambda> returned NaN or infinity for 40 rows"),
        (
            lambda output, y: 1 / 0,
            LOGITS,
            LABELS,
            "--metric <lambda> raised ZeroDivisionError: division by zero",
        ),
    ],
)
def test_what_does_not_fit(metric: Any, outputs: np.ndarray, labels: np.ndarray, what: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        read_metric(metric).score({"y": outputs}, labels, 40)
    assert what is None or caught.value.what == what


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("top10", "no metric is called 'top10'", "Did you mean top1? There are: top1, top5, pkg.mod:function."),
        ("f1", "no metric is called 'f1'", "There are: top1, top5, pkg.mod:function."),
        ("math:pi", "--metric math:pi is an object of type float, not a function", None),
        ("math:pie", "--metric math:pie: math has no 'pie'", None),
    ],
)
def test_a_metric_that_is_none(name: str, what: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        read_metric(name)
    assert caught.value.what == what
    assert hint is None or caught.value.hint == hint
