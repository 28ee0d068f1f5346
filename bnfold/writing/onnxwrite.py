"""The bytes of an ONNX model, with its weights inside or in a file beside it.

Tensors are written one after the other, and those that are mapped from a file are not copied into memory first: a
model may be larger than memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from bnfold.loading.onnxfile import external_tensors, graphs
from bnfold.writing.files import data_name
from bnfold.writing.staging import Piece, save

if TYPE_CHECKING:
    import onnx_ir

SMALL_TENSOR_BYTES = 256  # these stay in the ONNX file
ALIGNMENT_BYTES = 64


def write_onnx(model: onnx_ir.Model, path: str, *, beside: bool) -> str:
    """Writes a model as a new file.

    Args:
        model: The model; it is not changed.
        path: The file.
        beside: Whether its weights go into a file of their own beside it.

    Returns:
        The name of that file, after its content; empty where there is none.

    Raises:
        OSError: It cannot be written.
    """
    import onnx_ir

    name = ""
    if beside or any(True for _ in external_tensors(model)):
        model = model.clone()
        _embed(model, above_too=not beside)
    if beside:
        name = _write_data(model, path)
    save(path, [onnx_ir.serde.serialize_model(model).SerializeToString()])
    return name


def _write_data(model: onnx_ir.Model, path: str) -> str:
    """Writes the large tensors of a model to a file beside it, and has the model name it, in place.

    Returns:
        The name of the file; empty where no tensor is large enough.
    """
    import onnx_ir

    outside = [
        (value, tensor)
        for graph in graphs(model)
        for value in graph.initializers.values()
        if (tensor := value.const_value) is not None
        and tensor.dtype is not onnx_ir.DataType.STRING
        and tensor.nbytes > SMALL_TENSOR_BYTES
    ]
    if not outside:
        return ""
    offsets, end = [], 0
    for _, tensor in outside:
        offsets.append(end)
        end += -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    written = f"{path}.data"
    digest = save(written, _aligned([tensor for _, tensor in outside]))
    name = data_name(path, digest)
    folder = os.path.dirname(path)
    os.rename(written, os.path.join(folder, name))
    for (value, tensor), offset in zip(outside, offsets, strict=True):
        value.const_value = onnx_ir.ExternalTensor(
            name,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=tensor.shape,  # type: ignore[arg-type]
            name=tensor.name or value.name or "",
            doc_string=tensor.doc_string,
            base_dir=folder,
        )
    return name


def _aligned(tensors: Iterable[onnx_ir.TensorProtocol]) -> Iterator[Piece]:
    """The bytes of tensors, each filled up to the alignment; one tensor at a time is in memory, if it has to be."""
    for tensor in tensors:
        yield _bytes_of(tensor)
        yield b"\0" * (-tensor.nbytes % ALIGNMENT_BYTES)


def _bytes_of(tensor: onnx_ir.TensorProtocol) -> Piece:
    """A tensor's bytes, without a copy where the array has them in that form."""
    import onnx_ir

    if isinstance(tensor, (onnx_ir.Tensor, onnx_ir.ExternalTensor)) and tensor.dtype.bitwidth >= 8:
        array = tensor.numpy()
        if array.nbytes == tensor.nbytes and array.flags.c_contiguous and sys.byteorder == "little":
            return array.reshape(-1).view(np.uint8).data
    return tensor.tobytes()


def _embed(model: onnx_ir.Model, *, above_too: bool) -> None:
    """Takes tensors that lie in other files into the model, in place; the large ones only if `above_too`."""
    import onnx_ir

    for graph in graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, onnx_ir.ExternalTensor) and (above_too or tensor.nbytes <= SMALL_TENSOR_BYTES):
                value.const_value = _in_memory(tensor)
        for node in graph:
            for key, attribute in list(node.attributes.items()):
                if not attribute.is_ref() and isinstance(attribute.value, onnx_ir.ExternalTensor):
                    node.attributes[key] = onnx_ir.AttrTensor(key, _in_memory(attribute.value))


def _in_memory(tensor: onnx_ir.ExternalTensor) -> onnx_ir.TensorProtocol:
    import onnx_ir

    array = tensor.numpy().copy()
    with suppress(BufferError):  # somebody still looks at it
        tensor.release()  # a mapped tensor holds a file descriptor
    return onnx_ir.Tensor(array, dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)
