"""Running ONNX models: the runtimes differ as they say, every form of a model opens, and errors are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny
from onnx import TensorProto, helper

from bnfold.errors import UnsupportedError, UsageError
from bnfold.running import runners
from bnfold.running.runners import (
    OrtRunner,
    as_ir,
    batch_norms_after_load,
    count_operators,
    make_runner,
    named_inputs,
    runnable,
)

X = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
X.setflags(write=False)


def test_it_computes_what_the_operators_mean() -> None:
    import torch
    from torch.nn import functional as F

    tensors = {name: torch.from_numpy(value).double() for name, value in tiny.parameters(4, 0).items()}
    convolved = F.conv2d(torch.tensor(X).double(), tensors["weight"], tensors["bias"], padding=1)
    normal = F.batch_norm(
        convolved, tensors["mean"], tensors["var"], tensors["gamma"], tensors["beta"], eps=tiny.EPSILON
    )
    for runtime in runners.ORT_RUNTIMES:
        got = make_runner(runtime, tiny.conv_bn().SerializeToString()).run({"x": X})
        assert list(got) == ["y"]
        np.testing.assert_allclose(got["y"], normal.relu().numpy(), rtol=1e-5, atol=1e-5)


def test_as_written_runs_the_batch_norm_and_ort_folds_it() -> None:
    before, after = tiny.conv_bn().SerializeToString(), tiny.folded().SerializeToString()

    def gap(runtime: str) -> float:
        ours, theirs = (make_runner(runtime, model).run({"x": X})["y"] for model in (before, after))
        return float(np.abs(ours - theirs).max())

    assert gap("ort-as-written") > 0
    folded, as_written = (make_runner(runtime, before).run({"x": X})["y"] for runtime in runners.ORT_RUNTIMES)
    assert not np.array_equal(folded, as_written)
    assert batch_norms_after_load(before) == 0


def test_a_batch_norm_the_runtime_cannot_fold_is_counted() -> None:
    assert batch_norms_after_load(tiny.bn_relu().SerializeToString()) == 1


def test_what_cannot_be_rewritten_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_norms_after_load(b"nonsense") is None
    monkeypatch.setattr(runners, "IN_MEMORY_LIMIT_BYTES", 10)
    assert batch_norms_after_load(tiny.conv_bn().SerializeToString()) is None


@pytest.mark.parametrize(("runtime", "name"), [("ort", "ort"), ("ort-as-written", "ort-as-written")])
def test_a_runner_knows_its_name_and_the_interface(runtime: str, name: str) -> None:
    runner = make_runner(runtime, tiny.conv_bn().SerializeToString(), threads=1)
    assert runner.name == name
    assert runner.input_names == ("x",)
    assert runner.inputs == {"x": ("tensor(float)", (None, 3, 6, 6))}
    assert runner.outputs == {"y": ("tensor(float)", (None, 4, 6, 6))}


def test_an_overridable_initializer_is_no_input_to_feed() -> None:
    proto = tiny.conv_bn()
    proto.graph.input.append(helper.make_tensor_value_info("gamma", TensorProto.FLOAT, (4,)))
    assert make_runner("ort", proto.SerializeToString()).input_names == ("x",)


def test_an_unknown_runtime_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        make_runner("ort-as-writen", b"")
    assert caught.value.what == "no runtime is called 'ort-as-writen'"
    assert (
        caught.value.hint
        == "Did you mean ort-as-written? There are: ort, ort-as-written, torch, torch-compile, openvino."
    )


def test_a_runtime_for_networks_is_refused_for_onnx() -> None:
    with pytest.raises(UsageError) as caught:
        make_runner("torch", tiny.conv_bn().SerializeToString())
    assert caught.value.what == "runtime 'torch' runs a PyTorch network, and this is an ONNX model"
    assert caught.value.hint == "Use one of: ort, ort-as-written."


def test_a_model_that_does_not_load_is_one_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        OrtRunner(b"nonsense", optimize=True, label="the model after")
    assert caught.value.what.endswith(
        "does not load the model after: INVALID_PROTOBUF : Failed to load model because protobuf parsing failed."
    )
    assert "\n" not in str(caught.value.what)


def test_inputs_the_declaration_refuses_are_a_usage_error() -> None:
    runner = make_runner("ort", tiny.conv_bn().SerializeToString(), label="the model before")
    with pytest.raises(UsageError) as caught:
        runner.run({"x": np.zeros((1, 4, 6, 6), np.float32)})
    assert caught.value.what == (
        "the model before does not run on x 1×4×6×6 float32: INVALID_ARGUMENT : "
        "Got invalid dimensions for input: x for the following indices index: 1 Got: 4 Expected: 3"
    )
    with pytest.raises(UsageError, match=r"float64.*Unexpected input data type"):
        runner.run({"x": X.astype(np.float64)})
    with pytest.raises(UsageError, match="missing from input feed"):
        runner.run({})


def test_inputs_an_operator_refuses_are_unsupported() -> None:
    nodes = [helper.make_node("Reshape", ["x", "target"], ["y"])]
    model = tiny.model(nodes, {"target": np.array([5])}, shape=("N",), out_shape=(None,))
    with pytest.raises(UnsupportedError, match="the model does not run on x 3 float32: "):
        make_runner("ort", model.SerializeToString()).run({"x": np.zeros(3, np.float32)})


def test_a_long_error_is_cut() -> None:
    broken = tiny.conv_bn()
    broken.graph.node[0].name = "n" * 10_000
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(UnsupportedError) as caught:
        OrtRunner(broken.SerializeToString(), optimize=False)
    assert len(caught.value.what) < 400


def test_a_sequence_output_is_given_item_by_item() -> None:
    nodes = [helper.make_node("SplitToSequence", ["x"], ["y"], axis=0, keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    got = make_runner("ort", proto.SerializeToString()).run({"x": np.ones((2, 3), np.float32)})
    assert {name: value.shape for name, value in got.items()} == {"y[0]": (3,), "y[1]": (3,)}


def test_a_path_is_run_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(tiny.conv_bn(), path)
    with runnable(path) as model:
        assert model == str(path)
    with runnable(str(path)) as model:
        assert model == str(path)


def test_a_model_in_memory_is_run_from_its_bytes() -> None:
    for model in (tiny.conv_bn(), onnx_ir.from_proto(tiny.conv_bn())):
        with runnable(model) as opened:
            assert isinstance(opened, bytes)
            assert make_runner("ort", opened).run({"x": X})["y"].shape == (2, 4, 6, 6)


def test_a_model_with_tensors_in_files_is_run_from_a_temporary_file(tmp_path: Path) -> None:
    onnx.save(tiny.conv_bn(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    with runnable(onnx_ir.load(str(tmp_path / "m.onnx"))) as opened:
        assert isinstance(opened, str)
        assert make_runner("ort", opened).run({"x": X})["y"].shape == (2, 4, 6, 6)
    assert not Path(opened).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.data"}


def test_a_model_too_large_for_one_message_is_run_from_a_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "IN_MEMORY_LIMIT_BYTES", 10)
    with runnable(onnx_ir.from_proto(tiny.conv_bn())) as opened:
        assert isinstance(opened, str)
        assert make_runner("ort", opened).run({"x": X})["y"].shape == (2, 4, 6, 6)


def test_a_file_that_is_no_onnx_model_is_unsupported(tmp_path: Path) -> None:
    import torch

    weights, module = tmp_path / "weights.pt", tmp_path / "module.pt"
    torch.save({"weight": torch.zeros(3)}, weights)
    torch.save(torch.nn.Identity(), module)
    with pytest.raises(UnsupportedError) as caught:
        as_ir(weights)
    assert caught.value.what == f"{weights} holds weights only; what is run must be an ONNX model"
    with pytest.raises(UnsupportedError) as caught:
        as_ir(module)
    assert caught.value.what == f"{module} is a module file; what is run must be an ONNX model"
    assert caught.value.hint == "Convert it to ONNX first: bnfold convert MODEL -o OUT.onnx."


def test_operators_are_counted_in_bodies_and_functions_too() -> None:
    def body(name: str) -> onnx.GraphProto:
        made = [helper.make_node("Relu", ["x"], [name])]
        return helper.make_graph(made, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2,))])

    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("If", ["yes"], ["b"], then_branch=body("t"), else_branch=body("e")),
        helper.make_node("Twice", ["b"], ["y"], domain="local"),
    ]
    twice = helper.make_function(
        "local", "Twice", ["i"], ["o"], [helper.make_node("Add", ["i", "i"], ["o"])], [helper.make_opsetid("", 18)]
    )
    model = tiny.model(nodes[:1], {"yes": np.array(True)}, shape=(2,), out_shape=(2,), outputs=["a"])
    model.graph.node.extend(nodes[1:])
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("local", 1))
    counts = count_operators(onnx_ir.from_proto(model))
    assert counts == {"Relu": 3, "Add": 1, "If": 1, "Twice": 1}
    assert next(iter(counts)) == "Relu"


def test_inputs_can_be_named_or_in_order() -> None:
    x, y = np.zeros(1), np.ones(2)
    for given in ({"a": x, "b": y}, [x, y], (x, y)):
        named = named_inputs(given, ["a", "b"])
        assert list(named) == ["a", "b"]
        assert named["b"] is y
    assert named_inputs(x, ["a"])["a"] is x
    assert named_inputs([[1.0, 2.0]], ["a"])["a"].shape == (2,)
