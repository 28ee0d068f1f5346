from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest

from bnfold import export
from bnfold.errors import BnfoldError, OutputError, UsageError
from bnfold.export import check_writable, staged, write_model
from bnfold.load import load

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
    assert sorted(os.listdir()) == ["always.onnx", "always.onnx.data", "auto.onnx", "auto.onnx.data"]
    assert os.path.getsize("auto.onnx.data") == WEIGHT.nbytes
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
    os.rename("in.data", "out.onnx.data")
    proto = onnx.load(source, load_external_data=False)
    for tensor in [*proto.graph.initializer, proto.graph.node[0].attribute[0].t]:
        tensor.external_data[0].value = "out.onnx.data"
    onnx.save(proto, source)
    opened = load(source).model
    before = Path("out.onnx.data").read_bytes()
    assert refusal(OutputError, write_model, opened, "out.onnx", external_data="always", force=True) == (
        "error[OUTPUT]: out.onnx.data holds the weights of the input\nName another output: -o FILE."
    )
    assert Path("out.onnx.data").read_bytes() == before


def test_an_existing_output_is_refused_before_any_work(here: Path) -> None:
    Path("out.onnx").write_text("precious")
    expected = f"error[OUTPUT]: out.onnx already exists\n{HINT}"
    assert refusal(OutputError, check_writable, "out.onnx", force=False) == expected
    assert refusal(OutputError, write_model, model(), "out.onnx") == expected
    assert Path("out.onnx").read_text() == "precious"
    write_model(model(), "out.onnx", force=True)
    assert np.array_equal(weight("out.onnx"), WEIGHT)


def test_an_existing_data_file_is_refused_too(here: Path) -> None:
    Path("out.onnx.data").write_text("precious")
    expected = f"error[OUTPUT]: out.onnx.data already exists\n{HINT}"
    assert refusal(OutputError, check_writable, "out.onnx", force=False, external_data="always") == expected
    assert refusal(OutputError, write_model, model(), "out.onnx", external_data="always") == expected
    check_writable("out.onnx", force=False)


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
    assert sorted(os.listdir()) == ["out.onnx", "out.onnx.data"][: 1 + (external_data == "always")]


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
