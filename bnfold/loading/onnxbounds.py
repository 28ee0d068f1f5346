"""Bounds on an ONNX file, checked on the message itself before any work: sizes, depth, counts, calls.

Every tensor is looked at wherever it stands (initializers, sparse ones, attributes, bodies of control flow, functions
and what they default to): its sizes are not negative, and it holds as many bytes or numbers as its sizes say, or names
external data in plain numbers. Bodies are not nested too deep, and functions do not call themselves, or each other so
often that writing out the calls (which runtimes do) is more than a model has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto

from bnfold.errors import LimitError, UnreadableError, UnsafeError, UnsupportedError
from bnfold.wording import printable

AGAIN = "Download or export it again."
SMALLER = "Export a smaller model."

DEEPEST = 20  # bodies inside each other
MOST_NODES = 1_000_000  # operators, with every call of a function written out
LARGEST_COUNT = 2**48  # elements of one tensor

BITS: dict[int, int] = {
    TensorProto.FLOAT: 32, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16, TensorProto.INT16: 16,
    TensorProto.INT32: 32, TensorProto.INT64: 64, TensorProto.BOOL: 8, TensorProto.FLOAT16: 16, TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32, TensorProto.UINT64: 64, TensorProto.COMPLEX64: 64, TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16, TensorProto.FLOAT8E4M3FN: 8, TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8, TensorProto.UINT4: 4, TensorProto.INT4: 4, TensorProto.FLOAT4E2M1: 4,
    23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
NUMBER = re.compile(r"\d{1,18}")
LISTS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def check_bounds(proto: onnx.ModelProto, name: str, limit: int) -> None:
    """Whether a model is within bounds.

    Args:
        proto: The model as it was parsed; it is not changed.
        name: What errors call its file.
        limit: Bytes that all its tensors may have together.

    Raises:
        UnreadableError: A tensor holds something else than its sizes say, or a function calls itself.
        UnsafeError: The place of external data is not plainly said.
        LimitError: It is nested too deep, has too many operators, or its tensors too many bytes.
        UnsupportedError: A tensor has an element type that bnfold does not know.
    """
    if not _is_text(proto):
        raise UnreadableError(f"{name} is a damaged ONNX file: a name in it is not UTF-8", AGAIN)
    total = sum(_check_tensor(tensor, name) for tensor in every_tensor(proto, name))
    if total > limit:
        raise LimitError(f"the tensors of {name} have {total} bytes, more than {limit}", "Raise --max-bytes.")
    _check_calls(proto, name)


def _is_text(proto: Any) -> bool:
    """Whether every name is text; protobuf hands out the bytes of one that is not."""
    messages = [proto]
    while messages:
        for field, value in messages.pop().ListFields():
            if field.type == field.TYPE_STRING:
                if not all(isinstance(text, str) for text in ((value,) if isinstance(value, (str, bytes)) else value)):
                    return False
            elif field.message_type is not None:
                messages += [value] if hasattr(value, "ListFields") else value
    return True


def every_tensor(proto: onnx.ModelProto, name: str) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever it stands.

    Raises:
        LimitError: Bodies are nested too deep.
    """
    for graph in every_graph(proto, name):
        yield from _tensors(graph)


def nbytes_of(tensor: onnx.TensorProto) -> int:
    """The bytes that the sizes of a tensor need."""
    return (math.prod(int(size) for size in tensor.dims) * BITS.get(tensor.data_type, 0) + 7) // 8


def every_graph(proto: onnx.ModelProto, name: str) -> Iterator[Any]:
    """Every graph and function, and the bodies inside them.

    Raises:
        LimitError: They are nested too deep.
    """
    level: list[Any] = [proto.graph, *proto.functions]
    for info in proto.training_info:
        level += [info.initialization, info.algorithm]
    for _ in range(DEEPEST):
        yield from level
        level = [body for graph in level for attribute in _attributes(graph) for body in _bodies(attribute)]
        if not level:
            return
    raise LimitError(f"{name} has bodies of control flow nested deeper than {DEEPEST}", SMALLER)


def _bodies(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _attributes(graph: Any) -> Iterator[onnx.AttributeProto]:
    for node in graph.node:
        yield from node.attribute
    if isinstance(graph, onnx.FunctionProto):
        yield from graph.attribute_proto


def _tensors(graph: Any) -> Iterator[onnx.TensorProto]:
    sparse = []
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        sparse += list(graph.sparse_initializer)
    for attribute in _attributes(graph):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        sparse += list(attribute.sparse_tensors)
    for tensor in sparse:
        yield from (part for part in (tensor.values, tensor.indices) if part.ByteSize())


def _check_tensor(tensor: onnx.TensorProto, name: str) -> int:
    """The bytes of a tensor, which are there or said to lie in another file."""
    shown = f"'{printable(tensor.name)}' of {name}"
    sizes = [int(size) for size in tensor.dims]
    if any(size < 0 for size in sizes):
        raise UnreadableError(f"{shown} has a size of {min(sizes)}", AGAIN)
    count = math.prod(sizes)
    if count > LARGEST_COUNT or len(sizes) > 64:
        raise LimitError(f"{shown} has {count} elements in {len(sizes)} dimensions", SMALLER)
    if tensor.HasField("segment"):
        raise UnreadableError(f"{shown} is a part of a tensor", AGAIN)
    stored = sum(len(getattr(tensor, field)) for field in LISTS)
    if tensor.data_location == TensorProto.EXTERNAL:
        if stored or tensor.raw_data or tensor.string_data:
            raise UnsafeError(f"{shown} lies in another file, and holds numbers itself", AGAIN)
        _check_place(tensor, shown)
    elif tensor.HasField("raw_data") and (stored or tensor.string_data):
        raise UnreadableError(f"{shown} holds its numbers twice", AGAIN)
    bits = BITS.get(tensor.data_type)
    if tensor.data_type == TensorProto.STRING and tensor.data_location != TensorProto.EXTERNAL:
        _agreed(len(tensor.string_data), count, "texts", shown)
        return sum(len(text) for text in tensor.string_data)
    if bits is None:
        raise UnsupportedError(f"{shown} has the element type {tensor.data_type}", "Export it with another one.")
    nbytes = nbytes_of(tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        return nbytes
    if tensor.HasField("raw_data"):
        _agreed(len(tensor.raw_data), nbytes, "bytes", shown)
        return nbytes
    parts = 2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1
    packed = {4: 2, 2: 4}.get(bits, 1)  # elements in one number of int32_data
    _agreed(stored, -(-count * parts // packed), "numbers", shown)
    return nbytes


def _agreed(found: int, wanted: int, what: str, shown: str) -> None:
    if found != wanted:
        raise UnreadableError(f"{shown} holds {found} {what}, and its sizes need {wanted}", AGAIN)


def _check_place(tensor: onnx.TensorProto, shown: str) -> None:
    keys = [entry.key for entry in tensor.external_data]
    if len(keys) != len(set(keys)) or "location" not in keys:
        raise UnsafeError(f"{shown} names the place of its external data more than once, or not at all", AGAIN)
    for entry in tensor.external_data:
        if entry.key in ("offset", "length") and not NUMBER.fullmatch(entry.value):
            raise UnsafeError(f"{shown} has the {entry.key} '{printable(entry.value)}', which is no number", AGAIN)


def _check_calls(proto: onnx.ModelProto, name: str) -> None:
    """Counts operators with every call of a function written out."""
    functions = {(function.domain, function.name): function for function in proto.functions}
    known: dict[tuple[str, str], int] = {}

    def count(graph: Any, calling: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in graph.node:
            total += 1
            key = (node.domain, node.op_type)
            if key in calling:
                raise UnreadableError(f"the function '{printable(node.op_type)}' of {name} calls itself", AGAIN)
            if key in functions:
                if key not in known:
                    if len(calling) >= DEEPEST:
                        raise LimitError(f"{name} has functions that call each other deeper than {DEEPEST}", SMALLER)
                    known[key] = count(functions[key], (*calling, key))
                total += known[key]
            for attribute in node.attribute:
                for body in _bodies(attribute):
                    total += count(body, calling)
            if total > MOST_NODES:
                raise LimitError(f"{name} has more than {MOST_NODES} operators, its functions written out", SMALLER)
        return total

    count(proto.graph, ())
    for key, function in functions.items():
        if key not in known:
            known[key] = count(function, (key,))
