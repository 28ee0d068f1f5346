"""Errors against float64: what passes, what warns, what fails, and what is never excused."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from bnfold.running.runners import OrtRunner
from bnfold.running.subjects import OnnxSubject
from bnfold.verification.compare import DRIFT, RATIO, Limits
from bnfold.verification.yardstick import Float64Runner, OutputError, errors, float64_runner, worst_errors, yardstick

X = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
X.setflags(write=False)


def run(model: object) -> dict[str, np.ndarray]:
    return OrtRunner(model.SerializeToString(), optimize=False).run({"x": X})  # type: ignore[attr-defined]


def judged(exact: float, before: float, after: float, dtype: str = "float32") -> OutputError:
    """One element, in an output of scale 1."""
    truth = np.array([1.0, exact])
    single = [np.array([1.0, value]).astype(dtype) for value in (before, after)]
    [found] = errors({"y": truth}, {"y": single[0]}, {"y": single[1]})
    return found


def test_a_model_is_as_far_from_float64_as_itself() -> None:
    model = tiny.conv_bn()
    outputs = run(model)
    [found] = errors(yardstick(model, {"x": X}), outputs, outputs)
    assert 0 < found.error_before == found.error_after < 1e-6
    assert (found.ratio, found.level, found.sentence()) == (1.0, "pass", "")


def test_a_right_fold_passes_and_a_wrong_one_fails() -> None:
    reference, before = yardstick(tiny.conv_bn(), {"x": X}), run(tiny.conv_bn())
    [right] = errors(reference, before, run(tiny.folded()))
    [wrong] = errors(reference, before, run(tiny.folded(off_by=1e-2)))
    assert (right.level, wrong.level) == ("pass", "fail")
    assert wrong.ratio > 100
    assert wrong.rms_after > 100 * wrong.rms_before
    assert wrong.sentence().endswith("above 0.0001 and 4 times together it fails")


def test_the_yardstick_is_what_the_operators_mean() -> None:
    tensors = {name: torch.from_numpy(value).double() for name, value in tiny.parameters(4, 0).items()}
    y = torch.nn.functional.conv2d(torch.tensor(X).double(), tensors["weight"], tensors["bias"], padding=1)
    parameters = (tensors["mean"], tensors["var"], tensors["gamma"], tensors["beta"])
    y = torch.nn.functional.batch_norm(y, *parameters, eps=float(np.float32(tiny.EPSILON))).relu()
    got = yardstick(tiny.conv_bn(), {"x": X})
    assert list(got) == ["y"]
    np.testing.assert_allclose(got["y"], y.numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [
        (0.0, 5e-6, "pass"),  # many times, and not far
        (3e-4, 3e-4, "pass"),  # far, and no farther than before
        (3e-4, 5e-4, "pass"),
        (3e-4, 7.5e-4, "warn"),  # above 2 times
        (3e-4, 15e-4, "fail"),
        (1e-6, 2e-5, "warn"),  # 20 times, and only above the lower limit
        (1e-6, 2e-4, "fail"),
    ],
)
def test_both_numbers_must_be_bad(before: float, after: float, level: str) -> None:
    assert judged(0.0, before, after).level == level


def test_innocent_drift_is_said() -> None:
    assert judged(0.0, 3e-4, 3e-4).sentence() == (
        "output 'y' is 0.0003 of its scale from float64, 1 times 0.0003 before: "
        "the model magnifies rounding, the fold does not add to it"
    )


@pytest.mark.parametrize(
    ("dtype", "warn", "fail"),
    [("float64", 5e-13, 5e-11), ("float32", 5e-5, 5e-4), ("float16", 1e-2, 5e-2), ("bfloat16", 6e-2, 0.25)],
)
def test_every_dtype_has_its_limits(dtype: str, warn: float, fail: float) -> None:
    import ml_dtypes  # noqa: F401  (its dtypes get their names)

    assert [judged(0.0, 0.0, error, dtype).level for error in (0.0, warn, fail)] == ["pass", "warn", "fail"]
    assert Limits(warn, fail).level(float("nan")) == 2
    assert (RATIO.warn, RATIO.fail) == (2.0, 4.0)
    assert DRIFT[dtype].warn < DRIFT[dtype].fail


def test_an_error_counts_as_half_a_last_place_at_least() -> None:
    assert judged(0.0, 0.0, 0.0).ratio == 1.0
    assert judged(0.0, 0.0, 2.0**-22).ratio == 4.0


def test_nan_on_one_side_always_fails_and_on_both_is_said() -> None:
    nan = float("nan")
    for one, other in ((0.0, nan), (nan, 0.0)):
        assert judged(0.0, one, other).level == "fail"
    assert judged(0.0, 0.0, nan).sentence() == (
        "output 'y': 1 of 2 values are NaN or infinite on one side only, the first at [1]: 0 before and nan after"
    )
    for exact in (0.0, nan):  # an overflow, and a model that means NaN
        both = judged(exact, nan, nan)
        assert (both.level, both.non_finite) == ("pass", 1)
        assert both.sentence() == "output 'y': 1 values are NaN or infinite in both models, and not compared"
    assert judged(0.0, np.inf, -np.inf).level == "fail"


def test_integers_must_agree_and_have_no_error() -> None:
    one, other = np.array([1, 2]), np.array([1, 3])
    [same] = errors({"y": one}, {"y": one}, {"y": one})
    [apart] = errors({"y": one}, {"y": one}, {"y": other})
    assert (same.level, same.error_before, apart.level) == ("pass", 0.0, "fail")


def test_runs_add_up_to_the_worst() -> None:
    [found] = worst_errors([[judged(0.0, 1e-6, 2e-6)], [judged(0.0, 3e-6, 1e-6)]])
    assert (found.error_before, found.error_after) == (pytest.approx(3e-6), pytest.approx(2e-6))
    [bad] = worst_errors([[judged(0.0, 0.0, 0.0)], [judged(0.0, 0.0, float("nan"))]])
    assert bad.level == "fail"


def test_the_runner_declares_what_the_model_does() -> None:
    import onnx_ir

    model = tiny.conv_bn()
    runner, other = Float64Runner(model), OrtRunner(model.SerializeToString(), optimize=False)
    assert (runner.name, runner.input_names) == ("float64", ("x",))
    assert (runner.inputs, runner.outputs) == (other.inputs, other.outputs)
    np.testing.assert_array_equal(runner.prepared({"x": X})()["y"], runner.run({"x": X})["y"])
    subject = OnnxSubject(model.SerializeToString(), onnx_ir.from_proto(model))
    np.testing.assert_array_equal(float64_runner(subject).run({"x": X})["y"], runner.run({"x": X})["y"])
