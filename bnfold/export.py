"""Writes models: where they can be read back and checked first, then into their place.

Weights below protobuf's limit stand inside the ONNX file; above, in a file beside it that belongs to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.errors import OutputError, UsageError
from bnfold.files import OTHER, check_folder, check_target, move, reported, save, sync, temporary_folder, write_text
from bnfold.onnxfile import external_tensors, graphs

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Staged", "check_writable", "staged", "staged_file", "write_model", "write_text"]

DATA = ".data"
EXTERNAL_DATA = ("auto", "always", "never")
INSIDE_LIMIT_BYTES = 1_800_000_000  # protobuf refuses 2 GiB; the rest is room for the graph
SMALL_TENSOR_BYTES = 256  # these stay in the ONNX file


def check_writable(
    path: str | os.PathLike[str],
    *,
    force: bool,
    source: str | os.PathLike[str] | None = None,
    external_data: str = "auto",
) -> None:
    """Says before the work starts whether an output can be written.

    Args:
        path: The output.
        force: Whether an existing file may be replaced.
        source: The input, which is never replaced.
        external_data: As for `staged`.

    Raises:
        OutputError: It cannot.
        UsageError: `external_data` is none of its three values.
    """
    if external_data not in EXTERNAL_DATA:
        raise UsageError(f"--external-data {external_data!r} is unknown", f"Use one of: {', '.join(EXTERNAL_DATA)}.")
    name = os.fspath(path)
    check_folder(name)
    check_target(name, force=force, source=source)
    if external_data == "always":
        check_target(name + DATA, force=force, source=source)


def write_model(
    model: onnx_ir.Model, path: str | os.PathLike[str], *, external_data: str = "auto", force: bool = False
) -> None:
    """Writes a model, all or nothing; see `staged`."""
    with staged(model, path, external_data=external_data, force=force) as written:
        written.publish()


@dataclass(frozen=True)
class Staged:
    """A model that is written and not yet in its place.

    Attributes:
        path: Where it can be read.
        target: Where it belongs.
        force: Whether an existing file may be replaced.
        write: Writes it to a path.
        companion: What is appended to its name for the file with its weights; empty where they are inside.
    """

    path: str
    target: str
    force: bool
    write: Callable[[str], None]
    companion: str = ""

    def publish(self) -> None:
        """Moves it into its place.

        Raises:
            OutputError: It cannot be moved there; the place is as it was.
        """
        _check_targets(self.target, self.companion, self.force)
        with reported(self.target):
            move(self.path, self.target, self.companion)

    def reject(self) -> str:
        """Keeps it for inspection as `OUT.rejected`, and says where; the output itself is not touched.

        Raises:
            OutputError: It cannot be kept.
        """
        kept, again = f"{self.target}.rejected", self.path
        with reported(kept):
            if self.companion:
                again = f"{self.path}.rejected"
                self.write(again)  # the name of its external data stands in a model
            move(again, kept, self.companion)
        return kept


@contextmanager
def staged(
    model: onnx_ir.Model, path: str | os.PathLike[str], *, external_data: str = "auto", force: bool = False
) -> Iterator[Staged]:
    """Writes a model where it can be read back, and moves it into its place only when told to.

    What was neither published nor rejected by the end of the context is gone.

    Args:
        model: The model; it is not changed.
        path: The output.
        external_data: `"never"` puts the weights into the file, `"always"` beside it, `"auto"` decides by their size.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: It cannot be written.
    """
    target = os.fspath(path)
    check_writable(target, force=force, external_data=external_data)
    beside = _goes_beside(model, external_data)
    if beside:
        _check_own_source(model, target + DATA)
    with staged_file(
        lambda place: _write(model, place, beside=beside), target, force=force, companion=DATA if beside else ""
    ) as written:
        yield written


@contextmanager
def staged_file(
    write: Callable[[str], None], path: str | os.PathLike[str], *, force: bool = False, companion: str = ""
) -> Iterator[Staged]:
    """The same for anything that is written by a function.

    Args:
        write: Writes it to a path.
        path: The output.
        force: Whether an existing file may be replaced.
        companion: What is appended to its name for a second file that `write` makes.

    Raises:
        OutputError: It cannot be written.
    """
    target = os.fspath(path)
    _check_targets(target, companion, force)
    with temporary_folder(target) as folder:
        written = os.path.join(folder, os.path.basename(target))
        with reported(target):
            write(written)
        yield Staged(written, target, force, write, companion)


def _check_targets(target: str, companion: str, force: bool) -> None:
    check_target(target, force=force)
    if companion:
        check_target(target + companion, force=force)


def _goes_beside(model: onnx_ir.Model, external_data: str) -> bool:
    tensors = (value.const_value for graph in graphs(model) for value in graph.initializers.values())
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    if external_data == "never" and size >= INSIDE_LIMIT_BYTES:
        raise OutputError(
            f"the model has {size:,} bytes of weights, too many for one ONNX file", "Drop --external-data never."
        )
    return external_data == "always" or (external_data == "auto" and size >= INSIDE_LIMIT_BYTES)


def _check_own_source(model: onnx_ir.Model, data: str) -> None:
    for path in {tensor.path for tensor in external_tensors(model)}:
        if os.path.exists(path) and os.path.exists(data) and os.path.samefile(path, data):
            raise OutputError(f"{data} holds the weights of the input", OTHER)


def _write(model: onnx_ir.Model, path: str, *, beside: bool) -> None:
    import onnx_ir

    if beside or any(True for _ in external_tensors(model)):
        model = model.clone()
        _embed(model, above_too=not beside)
    if beside:
        folder, name = os.path.split(path)
        onnx_ir.external_data.unload_from_model(model, folder, name + DATA, size_threshold_bytes=SMALL_TENSOR_BYTES)
        with suppress(FileNotFoundError):  # there may be no tensor large enough to go there
            sync(path + DATA)
    save(path, onnx_ir.serde.serialize_model(model).SerializeToString())


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
