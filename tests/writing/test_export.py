from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest

from bnfold.errors import BnfoldError, OutputError, UsageError
from bnfold.loading.load import load
from bnfold.writing import export
from bnfold.writing.export import check_writable, staged, write_model

HINT = "Pass --force to replace it, or name another output: -o FILE."
WEIGHT = np.arange(600, dtype=np.float32).reshape(2, 300)


def model(scale: float = 1.0) -> onnx_ir.Model:
    x = onnx_ir.Value(name="x", type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT), shape=onnx_ir.Shape(["batch", 2]))
    weight = onnx_ir.Value(name="w", const_value=onnx_ir.tensor(WEIGHT * np.float32(scale), name="w"))
    constant = onnx_ir.node("Constant", [], {"value": onnx_ir.tensor(WEIGHT[:1], name="c")})
    dense = onnx_ir.node("MatMul", [x, weight])
    add = onnx_ir.node("Add", [dense.outputs[0], constant.outputs[0]])
    graph = onnx_ir.Graph([x], add.outputs, nodes=[constant, dense, add], initializers=[weight], opset_imports={"": 20})
    return onnx_ir.Model(graph, ir_version=10)


def with_everything_outside(folder: Path) -> Path:
    """A model file whose weights, also those in attributes, lie in another file."""
    proto = onnx_ir.to_proto(model())
    onnx.save(
        proto,
        folder / "in.onnx",
        save_as_external_data=True,
        location="in.data",
        size_threshold=0,
        convert_attribute=True,
    )
    return folder / "in.onnx"


def data_of(path: str) -> str:
    """The name of the one file that a model keeps weights in."""
    proto = onnx.load(path, load_external_data=False)
    [name] = {entry.value for t in proto.graph.initializer for entry in t.external_data if entry.key == "location"}
    content = Path(path).with_name(name).read_bytes()
    assert name == f"{Path(path).name}.{hashlib.sha256(content).hexdigest()[:16]}.data"
    return name


def weight(path: str | Path) -> np.ndarray:
    loaded = load(path).model
    assert isinstance(loaded, onnx_ir.Model)
    return loaded.graph.initializers["w"].const_value.numpy()  # type: ignore[union-attr]


def refusal(raises: type[BnfoldError], call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(raises) as caught:
        call(*args, **kwargs)
    return str(caught.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def unchanged(opened: onnx_ir.Model) -> Iterator[None]:
    before = onnx_ir.to_proto(opened).SerializeToString()
    yield
    assert onnx_ir.to_proto(opened).SerializeToString() == before


def test_a_small_model_is_one_file(here: Path) -> None:
    opened = model()
    with unchanged(opened):
        write_model(opened, "out.onnx")
    assert np.array_equal(weight("out.onnx"), WEIGHT)
    assert os.listdir() == ["out.onnx"]


def test_weights_beside_the_model_on_request_and_above_the_limit(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = model()
    with unchanged(opened):
        write_model(opened, "always.onnx", external_data="always")
        monkeypatch.setattr(export, "INSIDE_LIMIT_BYTES", 2400)
        write_model(opened, "auto.onnx")
    assert sorted(os.listdir()) == ["always.onnx", data_of("always.onnx"), "auto.onnx", data_of("auto.onnx")]
    assert Path(data_of("auto.onnx")).read_bytes()[: WEIGHT.nbytes] == WEIGHT.tobytes()
    assert np.array_equal(weight("always.onnx"), WEIGHT)
    assert np.array_equal(weight("auto.onnx"), WEIGHT)


def test_too_many_weights_for_one_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "INSIDE_LIMIT_BYTES", 2400)
    assert refusal(OutputError, write_model, model(), "out.onnx", external_data="never") == (
        "error[OUTPUT]: the model has 2,400 bytes of weights, too many for one ONNX file\nDrop --external-data never."
    )
    assert os.listdir() == []


def test_nothing_large_enough_to_lie_beside(here: Path) -> None:
    opened = model()
    opened.graph.initializers["w"].const_value = onnx_ir.tensor(np.ones((2, 1), np.float32), name="w")
    write_model(opened, "out.onnx", external_data="always")
    assert np.array_equal(weight("out.onnx"), np.ones((2, 1)))


@pytest.mark.parametrize("external_data", ["never", "always", "auto"])
def test_a_model_whose_weights_lie_elsewhere_is_written_without_them_staying_there(
    tmp_path: Path, external_data: str
) -> None:
    (tmp_path / "out").mkdir()
    source = with_everything_outside(tmp_path)
    opened = load(source).model
    assert isinstance(opened, onnx_ir.Model)
    with unchanged(opened):
        write_model(opened, tmp_path / "out" / "out.onnx", external_data=external_data)
    (tmp_path / "in.data").unlink()
    assert np.array_equal(weight(tmp_path / "out" / "out.onnx"), WEIGHT)
    again = load(tmp_path / "out" / "out.onnx").model
    assert isinstance(again, onnx_ir.Model)
    assert np.array_equal(again.graph[0].attributes["value"].value.numpy(), WEIGHT[:1])


def test_weights_that_somebody_still_looks_at(tmp_path: Path) -> None:
    opened = load(with_everything_outside(tmp_path)).model
    assert isinstance(opened, onnx_ir.Model)
    view = opened.graph.initializers["w"].const_value.numpy()  # type: ignore[union-attr]
    write_model(opened, tmp_path / "out.onnx")
    assert np.array_equal(view, WEIGHT)
    assert np.array_equal(weight(tmp_path / "out.onnx"), WEIGHT)


def test_the_weights_of_the_input_are_not_overwritten(here: Path) -> None:
    source = with_everything_outside(here)
    opened = load(source).model
    before = Path("in.data").read_bytes()
    assert refusal(OutputError, write_model, opened, "in.data", force=True) == (
        "error[OUTPUT]: in.data holds the weights of the input\nName another output: -o FILE."
    )
    assert Path("in.data").read_bytes() == before


def test_weights_of_the_input_that_are_called_like_those_of_the_output_stay(here: Path) -> None:
    write_model(model(), "out.onnx", external_data="always")
    os.rename("out.onnx", "in.onnx")
    data = next(name for name in os.listdir() if name.endswith(".data"))
    for scale in (2.0, 3.0):
        with staged(model(scale), "out.onnx", external_data="always", force=True, sources=[data]) as written:
            written.publish()
        assert sorted(os.listdir()) == sorted(["in.onnx", data, "out.onnx", data_of("out.onnx")])


def test_an_existing_output_is_refused_before_any_work(here: Path) -> None:
    Path("out.onnx").write_text("precious")
    expected = f"error[OUTPUT]: out.onnx already exists\n{HINT}"
    assert refusal(OutputError, check_writable, "out.onnx", force=False) == expected
    assert refusal(OutputError, write_model, model(), "out.onnx") == expected
    assert Path("out.onnx").read_text() == "precious"
    write_model(model(), "out.onnx", force=True)
    assert np.array_equal(weight("out.onnx"), WEIGHT)


def test_a_file_called_as_data_used_to_be_is_no_obstacle_and_stays(here: Path) -> None:
    Path("out.onnx.data").write_text("precious")
    write_model(model(), "out.onnx", external_data="always")
    assert Path("out.onnx.data").read_text() == "precious"


def test_replacing_a_model_replaces_its_data(here: Path) -> None:
    write_model(model(), "out.onnx", external_data="always")
    first = data_of("out.onnx")
    write_model(model(), "out.onnx", external_data="always", force=True)
    assert (data_of("out.onnx"), len(os.listdir())) == (first, 2)
    write_model(model(2.0), "out.onnx", external_data="always", force=True)
    assert sorted(os.listdir()) == ["out.onnx", data_of("out.onnx")]
    assert data_of("out.onnx") != first
    write_model(model(2.0), "out.onnx", force=True)
    assert os.listdir() == ["out.onnx"]


def test_a_name_without_room_for_what_is_appended(here: Path) -> None:
    name = "x" * 230 + ".onnx"
    check_writable(name, force=False, may_be_rejected=True)
    assert refusal(OutputError, check_writable, name, force=False, external_data="always") == (
        f"error[OUTPUT]: the name {name} is too long: it has 235 bytes, and 233 fit\nName another output: -o FILE."
    )


def test_tensors_are_aligned(here: Path) -> None:
    opened = model()
    shared = onnx_ir.tensor(np.arange(300, dtype=np.int8), name="odd")
    value = onnx_ir.Value(name="odd", const_value=shared)
    opened.graph.register_initializer(value)
    write_model(opened, "out.onnx", external_data="always")
    proto = onnx.load("out.onnx", load_external_data=False)
    places = [{entry.key: entry.value for entry in t.external_data} for t in proto.graph.initializer]
    offsets = [int(place["offset"]) for place in places if place]
    assert [offset % 64 for offset in offsets] == [0] * len(offsets)
    assert np.array_equal(onnx.numpy_helper.to_array(onnx.load("out.onnx").graph.initializer[-1]), shared.numpy())


@pytest.mark.parametrize("path", ["folder", "missing/out.onnx", "in.onnx"])
def test_where_nothing_can_be_written(here: Path, path: str) -> None:
    Path("folder").mkdir()
    Path("in.onnx").write_text("input")
    words = {
        "folder": "folder is a directory\nName another output: -o FILE.",
        "missing/out.onnx": "the folder missing does not exist\nCreate it first: mkdir -p missing",
        "in.onnx": "in.onnx is the input itself\nName another output: -o FILE.",
    }
    assert refusal(OutputError, check_writable, path, force=True, source="in.onnx") == f"error[OUTPUT]: {words[path]}"


def test_an_unknown_place_for_weights(here: Path) -> None:
    assert refusal(UsageError, check_writable, "out.onnx", force=False, external_data="perhaps") == (
        "error[USAGE]: --external-data 'perhaps' is unknown\nUse one of: auto, always, never."
    )


@pytest.mark.parametrize("external_data", ["never", "always"])
def test_a_staged_model_can_be_read_and_is_nowhere_until_published(here: Path, external_data: str) -> None:
    with staged(model(), "out.onnx", external_data=external_data) as written:
        assert np.array_equal(weight(written.path), WEIGHT)
        assert not Path("out.onnx").exists()
        written.publish()
        assert np.array_equal(weight("out.onnx"), WEIGHT)
    names = ["out.onnx", *([data_of("out.onnx")] if external_data == "always" else [])]
    assert sorted(os.listdir()) == names


def test_a_staged_model_nobody_wants_is_gone(here: Path) -> None:
    with staged(model(), "out.onnx"):
        pass
    assert os.listdir() == []


@pytest.mark.parametrize("external_data", ["never", "always"])
def test_a_rejected_model_lies_beside_an_output_that_stays(here: Path, external_data: str) -> None:
    write_model(model(), "out.onnx", external_data=external_data)
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    with staged(model(2.0), "out.onnx", external_data=external_data, force=True) as written:
        assert written.reject() == "out.onnx.rejected"
    assert np.array_equal(weight("out.onnx.rejected"), 2 * WEIGHT)
    assert np.array_equal(weight("out.onnx"), WEIGHT)
    assert {name: Path(name).read_bytes() for name in before} == before


def test_an_output_that_appeared_meanwhile_is_kept(here: Path) -> None:
    with staged(model(), "out.onnx") as written:
        Path("out.onnx").write_text("precious")
        assert refusal(OutputError, written.publish) == f"error[OUTPUT]: out.onnx already exists\n{HINT}"
    assert Path("out.onnx").read_text() == "precious"
    assert os.listdir() == ["out.onnx"]


@pytest.mark.parametrize("external_data", ["never", "always"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_a_failure_while_writing_leaves_the_good_model(
    here: Path, monkeypatch: pytest.MonkeyPatch, external_data: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    write_model(model(), "out.onnx", external_data=external_data)
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        write_model(model(2.0), "out.onnx", external_data=external_data, force=True)
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before
