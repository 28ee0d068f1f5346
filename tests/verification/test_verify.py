"""The quick check: it passes a right fold, and every kind of wrong one fails it with words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny
from onnx import TensorProto, helper

from bnfold.data.feeds import InputSpec
from bnfold.errors import UnsupportedError, UsageError
from bnfold.verification.compare import TOLERANCES
from bnfold.verification.verify import Verdict, verify

X = (2, 3, 6, 6)


def relu(scale: float = 1.0, **changes: object) -> onnx.ModelProto:
    """x → Mul → Relu → y, with what the caller changes."""
    nodes = [helper.make_node("Mul", ["x", "s"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    kept = {"shape": ("N", 3), "out_shape": ("N", 3)} | changes
    return tiny.model(nodes, {"s": np.array(scale, np.float32)}, **kept)  # type: ignore[arg-type]


def test_a_right_fold_passes() -> None:
    verdict = verify(tiny.conv_bn(), tiny.folded())
    assert verdict
    assert verdict.passed
    assert (verdict.level, verdict.proved, verdict.inputs, verdict.failures, verdict.notes) == ("full", True, 4, (), ())
    (output,) = verdict.outputs
    assert output.name == "y"
    assert 0 < output.rel < 1e-6
    assert output.error_before is not None
    assert output.error_after is not None
    assert output.ratio is not None
    assert 0 < output.error_after < 1e-6
    assert output.ratio < 4


def test_a_model_is_itself_to_the_bit() -> None:
    verdict = verify(tiny.conv_bn(), tiny.conv_bn())
    assert [output.max_abs for output in verdict.outputs] == [0.0]


def test_the_models_run_as_written() -> None:
    """Under onnxruntime's optimisations the difference would be exactly 0: it folds the BatchNorm while loading."""
    assert verify(tiny.conv_bn(), tiny.folded()).outputs[0].max_abs > 0


@pytest.mark.parametrize("form", ["path", "Path", "ModelProto", "ir.Model"])
def test_every_form_of_a_model_is_accepted(form: str, tmp_path: Path) -> None:
    proto = tiny.folded()
    path = tmp_path / "after.onnx"
    onnx.save(proto, path)
    after = {"path": str(path), "Path": path, "ModelProto": proto, "ir.Model": onnx_ir.from_proto(proto)}[form]
    assert verify(tiny.conv_bn(), after)


def test_drawn_inputs_are_taken_to_what_the_model_expects() -> None:
    """Around 1000, one part in 10⁵ shows; inputs that are given stay as they are."""
    shifted = relu(), relu(1 + 1e-5)
    assert verify(*shifted, rtol=1.2e-5)
    seen: list[float] = []

    def far(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        moved = {name: array + np.float32(1000) for name, array in feeds.items()}
        seen.extend(float(array.mean()) for array in moved.values())
        return moved

    [output] = verify(*shifted, drawn=far).outputs
    assert output.max_abs > 5e-3
    assert len(seen) == 5  # the check fails, so that the first is drawn once more to look inside
    verify(*shifted, {"x": np.ones((1, 3), np.float32)}, drawn=far)
    assert len(seen) == 5


def test_neither_model_is_changed() -> None:
    before, after = tiny.conv_bn(), tiny.folded()
    bytes_before, bytes_after = before.SerializeToString(), after.SerializeToString()
    verify(before, after)
    assert (before.SerializeToString(), after.SerializeToString()) == (bytes_before, bytes_after)


def test_a_model_with_its_tensors_in_another_file_is_run(tmp_path: Path) -> None:
    onnx.save(tiny.folded(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert (tmp_path / "m.data").stat().st_size > 400
    assert verify(tiny.conv_bn(), tmp_path / "m.onnx")
    assert verify(tiny.conv_bn(), onnx_ir.load(str(tmp_path / "m.onnx")))


@pytest.mark.parametrize("off_by", [1e-3, -1e-3, 10.0])
def test_a_perturbed_weight_fails(off_by: float) -> None:
    verdict = verify(tiny.conv_bn(), tiny.folded(off_by=off_by))
    assert not verdict
    assert not verdict.passed
    assert verdict.outputs[0].rel > TOLERANCES["float32"].rtol
    assert "the largest difference is" in verdict.failures[0]


def test_a_failure_names_what_was_found_and_what_is_allowed() -> None:
    verdict = verify(relu(), relu(1.5), {"x": np.array([[-1, 2, 4]], np.float32)})
    assert verdict.failures == (
        "output 'y': the largest difference is 2, allowed is 4e-05 (rtol 1e-05 of the output scale 4, atol 1e-08); "
        "output 'y' is 0.5 of its scale from float64, 8.39e+06 times 0 before; above 0.0001 "
        "and 4 times together it fails",
        "at 'y': the output reads 0.666666667·x + 0 in channel 0",
    )


def test_the_tolerance_can_be_set() -> None:
    inputs = {"x": np.array([[-1, 2, 4]], np.float32)}
    assert verify(relu(), relu(1.5), inputs, rtol=0.5)
    assert verify(relu(), relu(1.5), inputs, rtol=0.0, atol=2.0)
    assert not verify(relu(), relu(1.5), inputs, rtol=0.49)
    assert not verify(tiny.conv_bn(), tiny.folded(), rtol=0.0, atol=0.0)


def test_a_nan_fails_whatever_the_tolerance() -> None:
    verdict = verify(relu(), relu(math.nan), {"x": np.ones((1, 3), np.float32)}, rtol=1e9, atol=1e9)
    assert not verdict
    assert verdict.failures == (
        "output 'y': 3 of 3 values are NaN or infinite on one side only, the first at [0, 0]: 1 before and nan after",
    )


def test_the_same_nan_on_both_sides_passes_and_is_said() -> None:
    verdict = verify(relu(), relu(), {"x": np.array([[np.nan, 1, np.inf]], np.float32)})
    assert verdict
    assert verdict.notes == ("output 'y': 2 of 3 values are the same NaN or infinity in both",)


def test_a_fold_that_is_right_for_small_inputs_only_fails_on_a_large_one() -> None:
    clip = [helper.make_node("Clip", ["x", "", "top"], ["y"])]
    clipped = tiny.model(clip, {"top": np.array(0.1, np.float32)}, shape=("N", 3), out_shape=("N", 3))
    identity = tiny.model([helper.make_node("Identity", ["x"], ["y"])], {}, shape=("N", 3), out_shape=("N", 3))
    assert not verify(identity, clipped)


def test_a_fold_that_is_right_at_batch_1_only_fails() -> None:
    mean = [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)]
    across = tiny.model(mean, {"axes": np.array([0])}, shape=("N", 3), out_shape=(None, 3))
    identity = tiny.model([helper.make_node("Identity", ["x"], ["y"])], {}, shape=("N", 3), out_shape=("N", 3))
    verdict = verify(identity, across)
    assert verdict.failures == ("output 'y': its shape is 3×3 before and 1×3 after",)


@pytest.mark.parametrize(
    ("after", "failure"),
    [
        (
            tiny.model([helper.make_node("Relu", ["x"], ["z"])], {}, shape=("N", 3), out_shape=("N", 3), outputs=["z"]),
            "output 'y' is missing after; output 'z' is new after",
        ),
        (
            tiny.model(
                [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
                {},
                shape=("N", 3),
                out_shape=("N", 3),
                outputs=["y", "z"],
            ),
            "output 'z' is new after",
        ),
        (relu(shape=("N", 4), out_shape=("N", 4)), "input 'x': its shape is ?×3 before and ?×4 after; "),
        (relu(shape=(1, 3)), "input 'x': its shape is ?×3 before and 1×3 after"),
        (relu(shape=("N", 3, 1), out_shape=("N", 3, 1)), "input 'x': its shape is ?×3 before and ?×3×1 after; "),
        (
            tiny.model(
                [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)],
                {},
                shape=("N", 3),
                out_shape=("N", 3),
                out_type=TensorProto.DOUBLE,
            ),
            "output 'y': its type is tensor(float) before and tensor(double) after",
        ),
    ],
    ids=["renamed", "added", "shape", "pinned-batch", "rank", "dtype"],
)
def test_another_interface_fails_before_anything_runs(after: onnx.ModelProto, failure: str) -> None:
    verdict = verify(relu(), after, rtol=1e9)
    assert not verdict
    assert verdict.inputs == 0
    assert "; ".join(verdict.failures).startswith(failure)


def test_outputs_in_another_order_fail() -> None:
    def two(order: list[str]) -> onnx.ModelProto:
        nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
        return tiny.model(nodes, {}, shape=("N", 3), out_shape=("N", 3), outputs=order)

    verdict = verify(two(["y", "z"]), two(["z", "y"]))
    assert verdict.failures == ("the outputs are in the order ['y', 'z'] before and ['z', 'y'] after",)
    assert {output.name for output in verify(two(["y", "z"]), two(["y", "z"])).outputs} == {"y", "z"}


def test_a_batch_that_became_dynamic_passes() -> None:
    verdict = verify(tiny.conv_bn(batch=2), tiny.folded(batch="N"))
    assert verdict
    assert verdict.inputs == 3


def test_a_model_after_that_does_not_load_fails(tmp_path: Path) -> None:
    broken = tiny.folded()
    broken.graph.node[0].op_type = "NoSuchOperator"
    verdict = verify(tiny.conv_bn(), broken)
    assert not verdict
    assert "does not load the model after: " in verdict.failures[0]
    assert "NoSuchOperator" in verdict.failures[0]


def test_a_model_after_that_does_not_run_fails() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Reshape", ["r", "back"], ["y"]),
    ]
    once = tiny.model(nodes, {"target": np.array([3]), "back": np.array([1, 3])}, shape=("N", 3), out_shape=(None, 3))
    identity = tiny.model([helper.make_node("Identity", ["x"], ["y"])], {}, shape=("N", 3), out_shape=("N", 3))
    verdict = verify(identity, once)
    assert not verdict
    assert verdict.inputs == 1
    assert verdict.failures[0].startswith("the model after does not run on x 3×3 float32: ")
    assert verdict.failures[0].endswith("where the model before does")


def test_a_batch_the_model_before_cannot_run_is_left_out_and_said() -> None:
    def once() -> onnx.ModelProto:
        nodes = [helper.make_node("Reshape", ["x", "target"], ["y"])]
        return tiny.model(nodes, {"target": np.array([1, 3])}, shape=("N", 3), out_shape=(None, 3))

    verdict = verify(once(), once())
    assert verdict
    assert verdict.inputs == 2
    (note,) = verdict.notes
    assert note.startswith("the model before does not run on x 3×3 float32: ")
    assert note.endswith("; 2 other inputs were compared")


def test_a_model_before_that_does_not_load_is_an_error() -> None:
    broken = tiny.conv_bn()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(UnsupportedError, match="does not load the model before: "):
        verify(broken, tiny.folded())


@pytest.mark.parametrize("thing", [3, None, object()])
def test_what_is_no_model_is_an_error(thing: object) -> None:
    with pytest.raises(UnsupportedError, match="cannot be run directly"):
        verify(tiny.conv_bn(), thing)


@pytest.mark.parametrize("wrap", [lambda x: {"x": x}, lambda x: [x], lambda x: (x,), lambda x: x])
def test_inputs_can_be_given(wrap: object) -> None:
    x = np.random.default_rng(0).standard_normal(X).astype(np.float32)
    x.setflags(write=False)
    verdict = verify(tiny.conv_bn(), tiny.folded(), wrap(x))  # type: ignore[operator]
    assert verdict
    assert verdict.inputs == 1


def test_inputs_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"2 input arrays were passed, and the model has 1 inputs: x"):
        verify(tiny.conv_bn(), tiny.folded(), [np.zeros(X), np.zeros(X)])
    with pytest.raises(UsageError, match="names 'z'"):
        verify(tiny.conv_bn(), tiny.folded(), {"z": np.zeros(X)})


def test_shapes_the_model_leaves_open_can_be_given() -> None:
    def open_size() -> onnx.ModelProto:
        nodes = [helper.make_node("Relu", ["x"], ["y"])]
        return tiny.model(nodes, {}, shape=("N", 3, "H"), out_shape=("N", 3, "H"))

    with pytest.raises(UsageError, match="open"):
        verify(open_size(), open_size())
    assert verify(open_size(), open_size(), specs=[InputSpec("x", (1, 3, 7), "float32")])


def test_the_seed_decides_the_inputs() -> None:
    rels = [verify(tiny.conv_bn(), tiny.folded(), seed=seed).outputs[0].rel for seed in (0, 0, 7)]
    assert rels[0] == rels[1] != rels[2]


def test_integer_outputs_are_compared_exactly_and_that_is_said() -> None:
    def argmax(axis: int) -> onnx.ModelProto:
        nodes = [helper.make_node("ArgMax", ["x"], ["y"], axis=axis, keepdims=0)]
        return tiny.model(nodes, {}, shape=(3, 3), out_shape=(3,), out_type=TensorProto.INT64)

    assert verify(argmax(1), argmax(1)).notes == ("output 'y' (int64) was compared exactly",)
    assert "int64 values differ" in verify(argmax(1), argmax(0)).failures[0]


def test_progress_goes_from_0_to_1() -> None:
    seen: list[float] = []
    verify(tiny.conv_bn(), tiny.folded(), progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)


def test_to_dict_is_the_contract() -> None:
    made = verify(tiny.conv_bn(), tiny.folded()).to_dict()
    assert set(made) >= {"passed", "level", "outputs"}
    assert set(made["outputs"][0]) == {"name", "max_abs", "rel", "error_before", "error_after", "ratio"}
    json.dumps(made, allow_nan=False)


def test_to_dict_of_a_failure_is_json() -> None:
    made = verify(relu(), relu(math.inf)).to_dict()
    assert made["passed"] is False
    assert made["failures"]
    json.dumps(made, allow_nan=False)


def test_a_verdict_is_as_true_as_it_passed() -> None:
    assert bool(Verdict(True, "quick", 1)) is True
    assert bool(Verdict(False, "quick", 1)) is False
