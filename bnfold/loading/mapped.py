"""External tensors that share one mapping of their file.

`onnx_ir` maps the whole file once for each tensor, and a mapping holds a file descriptor: a model of a thousand tensors
takes as many as a process may have, and a thousand times its size of address space.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class MappedTensor(ir.ExternalTensor):
    """A tensor in a file that is mapped already.

    Args:
        tensor: The tensor as `onnx_ir` read it.
        content: uint8[size], the file.
    """

    def __init__(self, tensor: ir.ExternalTensor, content: NDArray[np.uint8]) -> None:
        super().__init__(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=tensor.metadata_props,
            base_dir=tensor.base_dir,
        )
        begin = tensor.offset or 0
        self._bytes = content[begin : begin + tensor.nbytes]

    def numpy(self) -> NDArray[Any]:
        """The array, read-only."""
        if self.dtype.bitwidth < 8:  # packed; its unpacking is the library's
            unpacked: NDArray[Any] = super().numpy()
            return unpacked
        stored = np.dtype(self.dtype.numpy()).newbyteorder("<")
        array: NDArray[Any] = self._bytes.view(stored).reshape(self.shape.numpy())
        return array

    def __array__(self, dtype: Any = None) -> NDArray[Any]:
        return np.asarray(self.numpy(), dtype=dtype)

    def tobytes(self) -> bytes:
        """A copy of its bytes."""
        return self._bytes.tobytes()


def share_mappings(model: ir.Model) -> None:
    """Has all external weights of a model share one mapping per file, in place. They must lie inside their files."""
    files: dict[str, NDArray[np.uint8]] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                if tensor.nbytes and tensor.path not in files:  # an empty file cannot be mapped
                    files[tensor.path] = _mapped(tensor.path)
                value.const_value = MappedTensor(tensor, files.get(tensor.path, np.zeros(0, np.uint8)))


def _mapped(path: str) -> NDArray[np.uint8]:
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
