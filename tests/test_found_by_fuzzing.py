"""What `scripts/fuzz.py` found, each with a name: a refusal in two lines, or an operator that stays as it is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny
from onnx import TensorProto, helper
from property.run_onnx import run

from bnfold.cli.app import main
from bnfold.frontends.onnx import fold_model
from bnfold.planning.choices import Choices

Change = Callable[[onnx.ModelProto], None]


def said(proto: onnx.ModelProto, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and stderr of inspecting a model, of which a refusal is the whole output."""
    Path("m.onnx").write_bytes(proto.SerializeToString())
    capsys.readouterr()
    code = main(["inspect", "m.onnx", *arguments])
    out, err = capsys.readouterr()
    assert code == 0 or out == ""
    return code, err


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_function(version: int) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    own = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", version)])
    proto = tiny.model([helper.make_node("Relu", ["x"], ["y"])], {}, shape=["N", 3], out_shape=["N", 3])
    proto.graph.node[0].CopyFrom(helper.make_node("F", ["x"], ["y"], domain="own"))
    proto.functions.append(own)
    proto.opset_import.append(opsets[1])
    return proto


def test_what_onnx_ir_logs_of_an_output_without_a_producer_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    proto = tiny.conv_bn()
    proto.graph.output[0].name = "other\x1b[2J"
    assert said(proto, capsys) == (
        3,
        "error[UNREADABLE]: m.onnx is a damaged ONNX file: nothing produces its output 'other\ufffd[2J'\n"
        "Download or export it again.\n",
    )


def test_a_function_of_another_opset_cannot_be_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = said(with_function(17), capsys)
    assert code == 4
    assert err.startswith(
        "error[UNSUPPORTED]: a function of the model cannot be written out (ValueError: Opset mismatch"
    )
    assert err.endswith("\nInline its functions first.\n")


def test_a_configuration_of_devices_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    proto = tiny.conv_bn()
    proto.graph.node[0].device_configurations.add()
    assert said(proto, capsys) == (
        3,
        "error[UNREADABLE]: m.onnx is a damaged ONNX file: 'conv' has a configuration of devices without a name\n"
        "Download or export it again.\n",
    )


@pytest.mark.parametrize("version", [0, -1, 2**31, 2**62])
def test_an_opset_that_is_none(version: int, capsys: pytest.CaptureFixture[str]) -> None:
    proto = tiny.conv_bn()
    proto.opset_import[0].version = version
    assert said(proto, capsys) == (
        3,
        f"error[UNREADABLE]: m.onnx is a damaged ONNX file: it names opset {version}\nDownload or export it again.\n",
    )


def test_a_name_that_is_not_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.conv_bn().SerializeToString()
    proto = onnx.ModelProto()
    proto.ParseFromString(data.replace(b"conv_out", b"conv\xff\xfeut"))
    assert said(proto, capsys) == (
        3,
        "error[UNREADABLE]: m.onnx is a damaged ONNX file: a name in it is not UTF-8\nDownload or export it again.\n",
    )


def test_a_key_of_external_data_that_means_nothing_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    proto = tiny.conv_bn()
    weight = proto.graph.initializer[0]
    Path("w.data").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key in ("location", "note"):
        weight.external_data.add(key=key, value="w.data")
    assert said(proto, capsys) == (0, "")


@pytest.mark.parametrize("damage", ["header", "version"])
def test_input_data_that_numpy_or_zipfile_trips_over(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones((1, 3, 6, 6), np.float32))
    data = buffer.getvalue()
    if damage == "header":
        with zipfile.ZipFile(buffer) as old:
            array = old.read("x.npy").replace(b"{'descr'", b"{(descr'")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as new:
            new.writestr("x.npy", array)
        data = buffer.getvalue()
    else:
        at = data.index(b"PK\x01\x02")
        data = data[: at + 6] + b"\xff" + data[at + 7 :]
    Path("x.npz").write_bytes(data)
    code, err = said(tiny.conv_bn(), capsys, "--input-data", "x.npz")
    assert code == 3
    assert err.startswith("error[UNREADABLE]: x.npz is damaged: ")
    assert err.endswith("\nWrite it again.\n")
    assert err.count("\n") == 2


def _rank_of_the_weight(proto: onnx.ModelProto) -> None:
    weight = proto.graph.initializer[0]
    weight.dims[:] = [int(np.prod(weight.dims))]


def _strides(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("strides", [1, 1, 1]))


def _dilations(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("dilations", [1]))


def _no_stride(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("strides", [0, 1]))


def _no_group(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("group", 0))


def _padding_beyond_bounds(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].ints[:] = [2**31] * 4


def _nothing_left(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("dilations", [50, 50]))


def _channels_that_contradict(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    proto.graph.value_info.append(helper.make_tensor_value_info("conv_out", TensorProto.FLOAT, ["N", 7, 6, 6]))


@pytest.mark.parametrize(
    "change",
    [
        _rank_of_the_weight,
        _strides,
        _dilations,
        _no_stride,
        _no_group,
        _padding_beyond_bounds,
        _nothing_left,
        _channels_that_contradict,
    ],
)
def test_a_convolution_that_is_broken_stays_as_it_is(change: Change) -> None:
    proto = tiny.conv_bn()
    change(proto)
    folded, plan = fold_model(ir.from_proto(proto))
    assert plan.folded == 0
    assert [node.op_type for node in folded.graph] == ["Conv", "BatchNormalization", "Relu"]


@pytest.mark.parametrize("duplicate", ["never", "auto", "always"])
def test_a_weight_is_not_rewritten_under_a_convolution_that_is_rigid(duplicate: str) -> None:
    """Both convolutions look alike; the bias of the first may be overridden, so that it takes no part in the fold."""
    wide = {name: value.astype(np.float64) for name, value in tiny.parameters(3, 0).items()}
    weights = {name: wide[name] for name in ("weight", "bias", "gamma", "beta", "mean", "var")}
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["one"], name="rigid"),
        helper.make_node("BatchNormalization", ["x", "gamma", "beta", "mean", "var"], ["bn"], name="bn"),
        helper.make_node("Conv", ["bn", "weight"], ["two"], name="linear"),
        helper.make_node("Concat", ["one", "two"], ["y"], axis=1),
    ]
    inputs = {"x": [1, 3, 6, 6], "bias": [3]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folded, plan = fold_model(ir.from_proto(proto), Choices(duplicate=duplicate))
    assert plan.folded == (0 if duplicate == "never" else 1)
    x = {"x": np.random.default_rng(0).normal(size=(1, 3, 6, 6))}
    before, after = run(proto, x), run(ir.to_proto(folded), x)
    np.testing.assert_allclose(after["y"], before["y"], rtol=1e-12, atol=1e-12)


def test_a_shared_weight_behind_a_batch_norm_over_positions() -> None:
    """A product that mixes positions uses the shared weight as it is, so that nobody may rewrite it."""
    rng = np.random.default_rng(0)
    weights = {
        **{"w0": rng.normal(size=(4, 4, 1, 1)), "w1": rng.normal(size=(4, 4, 1, 1)), "b1": rng.normal(size=4)},
        **{"shared": rng.normal(size=(4, 3)), "dense": rng.normal(size=(100, 3)), "bias": rng.normal(size=3)},
        **{"sizes": np.array([-1, 4, 25])},
    }
    for name, channels, uniform in (("u", 4, True), ("p", 25, False), ("q", 4, True)):
        for part in "sbmv":
            drawn = np.full(channels, rng.uniform(0.5, 2)) if uniform else rng.uniform(0.5, 2, channels)
            weights[name + part] = drawn

    def norm(name: str, x: str, y: str) -> onnx.NodeProto:
        return helper.make_node("BatchNormalization", [x, *(name + part for part in "sbmv")], [y], name=y)

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"]),
        norm("u", "c0", "n0"),
        helper.make_node("Conv", ["n0", "w1", "b1"], ["conv"]),
        *(helper.make_node("Reshape", ["conv", "sizes"], [f"r{i}"]) for i in range(2)),
        *(helper.make_node("Transpose", [f"r{i}"], [f"t{i}"], perm=[0, 2, 1]) for i in range(2)),
        helper.make_node("MatMul", ["t0", "shared"], ["y0"]),
        norm("p", "t1", "n1"),
        helper.make_node("MatMul", ["n1", "shared"], ["y1"]),
        norm("q", "conv", "n2"),
        helper.make_node("Flatten", ["n2"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["y2"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [2, 4, 5, 5])],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.DOUBLE, None) for i in range(3)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folded, _ = fold_model(ir.from_proto(proto))
    x = {"x": rng.normal(size=(2, 4, 5, 5))}
    before, after = run(proto, x), run(ir.to_proto(folded), x)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-9, atol=1e-9)
