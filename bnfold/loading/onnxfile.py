"""The bytes of an ONNX file as a checked `onnx_ir.Model`, its external tensors mapped and not read.

`onnx_ir` looks at where external data lies only when a tensor is first read, and not at all inside functions. So
everything is looked at here, before any work: sizes and depth are within bounds (`onnxbounds`), external data lies
inside the model's folder and is as long as declared, every value that is read is produced once, and operators stand in
an order in which they can run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnfold.errors import LimitError, UnreadableError, UnsafeError, UnsupportedError
from bnfold.quiet import silent_logs
from bnfold.specs import MAX_BYTES, parse_bytes
from bnfold.wording import KNOWN_FORMATS, first_line, printable

if TYPE_CHECKING:
    import onnx
    import onnx_ir

AGAIN = "Download or export it again."
LARGEST_MESSAGE_BYTES = 2**31
LARGEST_MODEL_BYTES = parse_bytes("--max-bytes", MAX_BYTES)
BESIDE = "Put the model and its data files into one folder, as plain files."


def read(data: bytes, name: str, limit: int = LARGEST_MODEL_BYTES) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    """The model, and notes on what had to be put right.

    Args:
        data: The file's bytes.
        name: Its path: external data is looked up beside it.
        limit: Bytes that all its tensors may have together.

    Raises:
        UnreadableError: It is damaged, or no ONNX model; or its external data is missing or too short.
        UnsafeError: Its external data lies outside its folder.
        LimitError: It is too large, too deep, or claims to be.
        UnsupportedError: It uses a part of ONNX that onnx_ir cannot represent.
    """
    import onnx
    import onnx_ir

    from bnfold.loading.mapped import share_mappings
    from bnfold.loading.onnxbounds import check_bounds
    from bnfold.loading.onnxoperators import check_operators

    check_size(len(data), name)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, whose module has no types
        if data[:1] == b"\x08":  # the tag of ir_version, which every writer puts first
            raise UnreadableError(f"{name} is a damaged or truncated ONNX file", AGAIN) from error
        raise _unknown(name) from error
    if not proto.HasField("graph"):
        raise _unknown(name)
    if not proto.opset_import:
        raise UnreadableError(f"{name} is a damaged or truncated ONNX file: it names no opset", AGAIN)
    if not proto.graph.node:
        raise UnreadableError(f"{name} is an ONNX file without operators", "Export a model that computes something.")
    check_bounds(proto, name, limit)
    check_operators(proto, name)
    folder = _check_external_data(proto, name)
    try:
        with silent_logs(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of keys of external data that mean nothing
            model = onnx_ir.serde.deserialize_model(proto)
    except NotImplementedError as error:
        raise UnsupportedError(
            f"{name} cannot be represented ({first_line(error)})", "Export it without that."
        ) from error
    except Exception as error:  # onnx_ir wraps whatever a malformed proto made it trip over
        raise UnreadableError(f"{name} is a damaged ONNX file ({first_line(error)})", AGAIN) from error
    for tensor in external_tensors(model):
        tensor.base_dir = folder
    share_mappings(model)
    return model, _settle_order(model, name)


def check_size(size: int, name: str) -> None:
    """Whether a file of that size can be one message.

    Raises:
        LimitError: It cannot.
    """
    if size >= LARGEST_MESSAGE_BYTES:
        raise LimitError(
            f"{name} has {size} bytes, more than an ONNX file can have in itself", "Export it with external data."
        )


def external_tensors(model: onnx_ir.Model) -> Iterator[onnx_ir.ExternalTensor]:
    """Every tensor of a model that lies in another file, functions and attributes included."""
    import onnx_ir

    for graph in graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.is_ref():
                    continue
                if attribute.type == onnx_ir.AttributeType.TENSOR:
                    tensors = [attribute.as_tensor()]
                elif attribute.type == onnx_ir.AttributeType.TENSORS:
                    tensors = list(attribute.as_tensors())
                else:
                    continue
                yield from (tensor for tensor in tensors if isinstance(tensor, onnx_ir.ExternalTensor))


def data_files(model: onnx_ir.Model) -> tuple[str, ...]:
    """The files in which tensors of a model lie."""
    return tuple(dict.fromkeys(os.fspath(tensor.path) for tensor in external_tensors(model)))


def weight_bytes(model: onnx_ir.Model) -> int:
    """The size of all weights of a model, wherever they lie."""
    tensors = (value.const_value for graph in graphs(model) for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def graphs(model: onnx_ir.Model) -> Iterator[onnx_ir.Graph]:
    """Every graph of a model: its own, bodies of control flow, functions."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield graph
        yield from graph.subgraphs()


def _check_external_data(proto: onnx.ModelProto, name: str) -> str:
    """Whether every tensor that lies in another file lies inside the model's folder, which is returned."""
    from onnx import TensorProto

    from bnfold.loading.onnxbounds import every_tensor, nbytes_of

    folder = os.path.dirname(os.path.abspath(name))
    sizes: dict[str, int] = {}
    for tensor in every_tensor(proto, name):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        location, offset = said["location"], int(said.get("offset", 0))
        needed = nbytes_of(tensor)
        length = int(said.get("length", needed))
        if location not in sizes:
            sizes[location] = _contained_size(folder, location, name)
        end = offset + max(needed, length)
        if end > sizes[location]:
            raise UnreadableError(
                f"'{printable(tensor.name)}' of {name} ends at byte {end} of '{printable(location)}', "
                f"which has {sizes[location]}",
                AGAIN,
            )
        if length < needed:
            raise UnreadableError(
                f"'{printable(tensor.name)}' of {name} has {length} bytes, and its shape needs {needed}", AGAIN
            )
    return folder


def _contained_size(folder: str, location: str, name: str) -> int:
    """The size of an external data file that lies inside the folder, itself and not by a link."""
    shown = f"the external data of {name} lies outside its folder: '{printable(location)}'"
    path = os.path.normpath(os.path.join(folder, location))
    if os.path.isabs(location) or not _inside(path, folder) or "\0" in location:
        raise UnsafeError(shown, BESIDE)
    if not _inside(os.path.realpath(path), os.path.realpath(folder)):
        raise UnsafeError(f"{shown} (it is a link)", BESIDE)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UnsafeError(f"the external data of {name} is not a regular file: '{printable(location)}'", BESIDE)
    if not os.path.isfile(path):
        raise UnreadableError(f"{name} needs the file '{printable(location)}' beside it, and there is none", BESIDE)
    status = os.stat(path)
    if status.st_nlink > 1:
        raise UnsafeError(f"{shown} (it is a hard link)", BESIDE)
    return status.st_size


def _inside(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _settle_order(model: onnx_ir.Model, name: str) -> tuple[str, ...]:
    for function in model.functions.values():
        _check(function.graph, set(), name)
    if _check(model.graph, set(), name):
        return ()
    try:
        model.graph.sort()
    except ValueError as error:
        raise UnreadableError(f"{name} is a damaged ONNX file: its operators form a cycle", AGAIN) from error
    return ("the operators were not in execution order; they were sorted",)


def _check(graph: onnx_ir.Graph, outer: set[onnx_ir.Value], name: str) -> bool:
    """Whether the operators stand in execution order; raises if one reads what nothing produces."""
    sources = {*outer, *graph.inputs, *graph.initializers.values()}
    outputs = [value for node in graph for value in node.outputs if value.name]
    if len({value.name for value in outputs}) < len(outputs):
        raise UnreadableError(f"{name} is a damaged ONNX file: two operators produce one value", AGAIN)
    known = sources.union(outputs)
    ordered = True
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in known:
                raise UnreadableError(
                    f"{name} is a damaged ONNX file: '{printable(node.name or node.op_type)}' reads "
                    f"'{printable(value.name)}', which nothing produces",
                    AGAIN,
                )
            ordered &= value is None or value in sources
        for attribute in node.attributes.values():
            if not attribute.is_ref():
                for body in _bodies(attribute):
                    ordered &= _check(body, sources, name)
        sources.update(node.outputs)
    for value in graph.outputs:
        if value not in known:
            raise UnreadableError(
                f"{name} is a damaged ONNX file: nothing produces its output '{printable(value.name)}'", AGAIN
            )
    return ordered


def _bodies(attribute: onnx_ir.Attr) -> tuple[onnx_ir.Graph, ...]:
    import onnx_ir

    if attribute.type == onnx_ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    if attribute.type == onnx_ir.AttributeType.GRAPHS:
        return tuple(attribute.as_graphs())
    return ()


def _unknown(name: str) -> UnreadableError:
    return UnreadableError(f"{name} is in no format bnfold knows", KNOWN_FORMATS)


def stored_bytes(model: onnx_ir.Model, path: str | os.PathLike[str] | None) -> int | None:
    """Size of a model as a file, with its external data.

    Args:
        model: The model.
        path: Where it is stored; None for a model that is in no file, whose size is that of the file it would be.

    Returns:
        Bytes; None for a model in no file that is too large to be one.
    """
    import onnx_ir

    if path is None:
        try:
            return int(onnx_ir.to_proto(model).ByteSize())
        except ValueError:  # protobuf, beyond 2 GiB
            return None
    data_files = {os.path.realpath(tensor.path) for tensor in external_tensors(model)}
    return os.stat(path).st_size + sum(os.stat(data_file).st_size for data_file in data_files)
