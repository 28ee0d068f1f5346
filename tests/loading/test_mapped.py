from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bnfold.loading.load import load
from bnfold.loading.mapped import MappedTensor

ARRAYS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(5, dtype=np.float16),
    "bfloat16": np.arange(7).astype(ml_dtypes.bfloat16),
    "int4": np.array([1, -2, 3, 4, -5], dtype=ml_dtypes.int4),
    "flag": np.array([True, False, True]),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def model(tmp_path: Path) -> ir.Model:
    """A model whose tensors of every kind lie in one file, without gaps."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3]))
    held = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in ARRAYS.items()]
    node = ir.node("Add", [x, held[0]])
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=held, opset_imports={"": 21}, name="g")
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    opened = load(tmp_path / "m.onnx").model
    assert isinstance(opened, ir.Model)
    return opened


@pytest.mark.parametrize("name", ARRAYS)
def test_a_mapped_tensor_is_the_tensor(model: ir.Model, name: str) -> None:
    tensor, array = model.graph.initializers[name].const_value, ARRAYS[name]
    assert tensor is not None
    assert tuple(tensor.shape) == array.shape
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(np.asarray(tensor), array)
    assert tensor.tobytes() == ir.tensor(array).tobytes()
    assert isinstance(tensor, MappedTensor)


def test_mapped_tensors_cannot_be_written_to(model: ir.Model) -> None:
    tensor = model.graph.initializers["float"].const_value
    assert tensor is not None
    assert not tensor.numpy().flags.writeable


def test_tensors_of_one_file_take_one_mapping(model: ir.Model) -> None:
    before = len(os.listdir("/proc/self/fd"))
    arrays = [
        value.const_value.numpy()
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.name != "int4"
    ]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(arrays) == len(ARRAYS) - 1


def test_what_is_written_of_it_names_its_place(model: ir.Model) -> None:
    [tensor] = [t for t in ir.to_proto(model).graph.initializer if t.name == "half"]
    place = {entry.key: entry.value for entry in tensor.external_data}
    assert (place["location"], place["length"]) == ("m.data", "10")
