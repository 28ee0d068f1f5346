from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from bnfold.errors import BnfoldError, UnreadableError, UnsafeError
from bnfold.loading.onnxfile import external_tensors, read

AGAIN = "Download or export it again."
BESIDE = "Put the model and its data files into one folder, as plain files."
NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


def model(*nodes: onnx.NodeProto, functions: list[onnx.FunctionProto] | None = None) -> onnx.ModelProto:
    nodes = nodes or (helper.make_node("MatMul", ["x", "w"], ["y"], name="dense"),)
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(NUMBERS, "w")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions or [], ir_version=10)


def externalise(tensor: onnx.TensorProto, location: str, offset: int = 0, length: int | None = None) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": NUMBERS.nbytes if length is None else length}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def read_proto(proto: onnx.ModelProto, path: str | Path = "m.onnx") -> tuple[onnx_ir.Model, tuple[str, ...]]:
    return read(proto.SerializeToString(), str(path))


def refusal(raises: type[BnfoldError], proto: onnx.ModelProto, path: str | Path = "m.onnx") -> str:
    with pytest.raises(raises) as caught:
        read_proto(proto, path)
    return str(caught.value)


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def in_initializer(location: str, **where: int) -> onnx.ModelProto:
    proto = model()
    externalise(proto.graph.initializer[0], location, **where)
    return proto


def in_constant(location: str, **where: int) -> onnx.ModelProto:
    node = constant(onnx.numpy_helper.from_array(NUMBERS, "c"))
    externalise(node.attribute[0].t, location, **where)
    return model(node, helper.make_node("MatMul", ["x", "c"], ["y"]))


def in_body(location: str, **where: int) -> onnx.ModelProto:
    inner = onnx.numpy_helper.from_array(NUMBERS, "inner")
    externalise(inner, location, **where)
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, ["batch", 3])
    body = helper.make_graph([helper.make_node("MatMul", ["x", "inner"], ["r"])], "b", [], [result], [inner])
    flag = helper.make_node("Constant", [], ["flag"], value=helper.make_tensor("f", TensorProto.BOOL, [], [True]))
    return model(flag, helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body))


def in_function(location: str, **where: int) -> onnx.ModelProto:
    node = constant(onnx.numpy_helper.from_array(NUMBERS, "c"))
    externalise(node.attribute[0].t, location, **where)
    nodes = [node, helper.make_node("MatMul", ["a", "c"], ["b"])]
    function = helper.make_function("own", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 20)])
    return model(helper.make_node("F", ["x"], ["y"], domain="own"), functions=[function])


PLACES = pytest.mark.parametrize("place", [in_initializer, in_constant, in_body, in_function])
Place = Callable[..., onnx.ModelProto]


def test_a_model_is_read() -> None:
    opened, notes = read_proto(model())
    assert [node.name for node in opened.graph] == ["dense"]
    assert notes == ()


@pytest.mark.parametrize("end", [1, 10, -1, -20])
def test_truncated(end: int) -> None:
    with pytest.raises(UnreadableError) as caught:
        read(model().SerializeToString()[:end], "m.onnx")
    message = str(caught.value)
    assert message.startswith("error[UNREADABLE]: m.onnx is a damaged or truncated ONNX file")
    assert message.endswith(AGAIN)


def test_cut_between_two_fields_is_noticed() -> None:
    proto = model()
    proto.ClearField("opset_import")
    assert refusal(UnreadableError, proto) == (
        f"error[UNREADABLE]: m.onnx is a damaged or truncated ONNX file: it names no opset\n{AGAIN}"
    )


def test_protobuf_of_another_kind() -> None:
    other = helper.make_opsetid("own", 1)
    with pytest.raises(UnreadableError) as caught:
        read(other.SerializeToString(), "m.onnx")
    assert str(caught.value) == (
        "error[UNREADABLE]: m.onnx is in no format bnfold knows\n"
        "bnfold reads ONNX, PyTorch checkpoints and modules, safetensors, TorchScript and .pt2 files."
    )


def test_a_graph_without_operators() -> None:
    proto = model()
    proto.graph.ClearField("node")
    assert refusal(UnreadableError, proto) == (
        "error[UNREADABLE]: m.onnx is an ONNX file without operators\nExport a model that computes something."
    )


def test_a_value_nothing_produces() -> None:
    proto = model(helper.make_node("Relu", ["z"], ["y"], name="act"))
    assert refusal(UnreadableError, proto) == (
        f"error[UNREADABLE]: m.onnx is a damaged ONNX file: 'act' reads 'z', which nothing produces\n{AGAIN}"
    )


def test_an_output_nothing_produces() -> None:
    assert refusal(UnreadableError, model(helper.make_node("Relu", ["x"], ["z"]))) == (
        f"error[UNREADABLE]: m.onnx is a damaged ONNX file: nothing produces its output 'y'\n{AGAIN}"
    )


def test_a_value_produced_twice() -> None:
    proto = model(helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Tanh", ["x"], ["y"]))
    assert refusal(UnreadableError, proto).startswith("error[UNREADABLE]: m.onnx is a damaged ONNX file")


def test_operators_out_of_order_are_sorted_and_the_user_told() -> None:
    opened, notes = read_proto(
        model(helper.make_node("Tanh", ["t"], ["y"], name="b"), helper.make_node("MatMul", ["x", "w"], ["t"], name="a"))
    )
    assert [node.name for node in opened.graph] == ["a", "b"]
    assert notes == ("the operators were not in execution order; they were sorted",)


def test_a_cycle() -> None:
    proto = model(helper.make_node("Add", ["x", "y"], ["t"]), helper.make_node("Tanh", ["t"], ["y"]))
    assert refusal(UnreadableError, proto) == (
        f"error[UNREADABLE]: m.onnx is a damaged ONNX file: its operators form a cycle\n{AGAIN}"
    )


@PLACES
def test_external_data_is_mapped_from_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    (tmp_path / "w.data").write_bytes(b"skip" + NUMBERS.tobytes())
    monkeypatch.chdir(tmp_path)
    opened, _ = read_proto(place("w.data", offset=4), "m.onnx")
    monkeypatch.chdir("/")
    tensors = list(external_tensors(opened))
    assert tensors
    assert all(np.array_equal(tensor.numpy(), NUMBERS) for tensor in tensors)


@PLACES
@pytest.mark.parametrize("location", ["../w.data", "sub/../../w.data", "{outside}", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, place: Place, location: str) -> None:
    (tmp_path / "w.data").write_bytes(NUMBERS.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    location = location.replace("{outside}", str(tmp_path / "w.data"))
    path = folder / "m.onnx"
    assert refusal(UnsafeError, place(location), path) == (
        f"error[UNSAFE]: the external data of {path} lies outside its folder: '{location}'\n{BESIDE}"
    )


@PLACES
def test_external_data_behind_a_link_is_refused(tmp_path: Path, place: Place) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(NUMBERS.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "soft.data").symlink_to(secret)
    os.link(secret, folder / "hard.data")
    path = folder / "m.onnx"
    for kind, words in (("soft", "a link"), ("hard", "a hard link")):
        assert refusal(UnsafeError, place(f"{kind}.data"), path) == (
            f"error[UNSAFE]: the external data of {path} lies outside its folder: "
            f"'{kind}.data' (it is {words})\n{BESIDE}"
        )


@PLACES
def test_missing_external_data(tmp_path: Path, place: Place) -> None:
    path = tmp_path / "m.onnx"
    assert refusal(UnreadableError, place("w.data"), path) == (
        f"error[UNREADABLE]: {path} needs the file 'w.data' beside it, and there is none\n{BESIDE}"
    )


def test_external_data_that_ends_too_early(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(NUMBERS.tobytes())
    path = tmp_path / "m.onnx"
    assert refusal(UnreadableError, in_initializer("w.data", offset=8), path) == (
        f"error[UNREADABLE]: 'w' of {path} ends at byte 32 of 'w.data', which has 24\n{AGAIN}"
    )


def test_external_data_shorter_than_its_shape(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(NUMBERS.tobytes())
    path = tmp_path / "m.onnx"
    assert refusal(UnreadableError, in_initializer("w.data", length=8), path) == (
        f"error[UNREADABLE]: 'w' of {path} has 8 bytes, and its shape needs 24\n{AGAIN}"
    )
