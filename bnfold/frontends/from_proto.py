"""A ModelProto as an `onnx_ir.Model`, read once where it says the same twice.

`onnx_ir` wraps every field of every message in an object, which takes a quarter of the time of a whole fold. Here equal
types, shapes and attributes are read once and shared, and it is noted what each node and value was read from, so that
`to_proto` can copy what has not changed. What is rare is left to `onnx_ir` altogether: functions, bodies of control
flow, sparse constants, annotations for quantization or several devices, and graphs that are not sound.

Objects that are shared are never changed in place: shapes are frozen, types and attributes are only replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir as ir

GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
LARGE = (onnx.AttributeProto.TENSOR, onnx.AttributeProto.TENSORS)  # what is not worth looking up by its bytes


@dataclass(frozen=True)
class Origin:
    """What a model was read from.

    Attributes:
        proto: The message; it is never changed.
        nodes: For each node, its message and the attributes it had.
        infos: For each value by its name, the message that declares it, and the type and shape that were read from it.
    """

    proto: onnx.ModelProto
    nodes: dict[ir.Node, tuple[onnx.NodeProto, dict[str, ir.Attr]]] = field(default_factory=dict)
    infos: dict[str, tuple[onnx.ValueInfoProto, Any, ir.Shape | None]] = field(default_factory=dict)


def read_proto(proto: onnx.ModelProto) -> tuple[ir.Model, Origin | None]:
    """A model as `onnx_ir` reads it, and where it came from: None where `onnx_ir` had to read it."""
    reader = _Reader(proto)
    graph = reader.graph() if _is_plain(proto) else None
    if graph is None:
        return ir.serde.deserialize_model(proto), None
    graph.opset_imports.update({opset.domain: opset.version for opset in proto.opset_import})
    model = ir.Model(
        graph,
        ir_version=proto.ir_version,
        producer_name=_given(proto, "producer_name"),
        producer_version=_given(proto, "producer_version"),
        domain=_given(proto, "domain"),
        model_version=_given(proto, "model_version"),
        doc_string=_given(proto, "doc_string"),
        metadata_props=_texts(proto.metadata_props),
    )
    return model, reader.origin


def _is_plain(proto: onnx.ModelProto) -> bool:
    """Whether there are no functions and annotations."""
    graph = proto.graph
    return not (proto.functions or proto.configuration or graph.quantization_annotation or graph.sparse_initializer)


class _Reader:
    """One main graph being read."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.origin = Origin(proto)
        self.values: dict[str, ir.Value] = {}
        self.declared = {info.name: info for info in proto.graph.value_info}
        self._types: dict[bytes, tuple[Any, ir.Shape | None]] = {}
        self._stored: dict[tuple[int, ...], tuple[ir.TensorType, ir.Shape]] = {}  # by dtype and sizes
        self._attributes: dict[bytes, ir.Attr] = {}

    def graph(self) -> ir.Graph | None:
        """The graph; None where it holds something that is left to `onnx_ir`."""
        proto = self.origin.proto.graph
        inputs = [self._make(info.name, info) for info in proto.input]
        initializers = [self._initializer(tensor) for tensor in proto.initializer]
        if not self._make_results():
            return None
        nodes = []
        for node in proto.node:
            made = self._node(node)
            if made is None:
                return None
            nodes.append(made)
        return ir.Graph(
            inputs,
            [self._declare(self.values[info.name], info) for info in proto.output],
            nodes=nodes,
            initializers=initializers,
            doc_string=_given(proto, "doc_string"),
            name=_given(proto, "name"),
            metadata_props=_texts(proto.metadata_props),
        )

    def _make_results(self) -> bool:
        """Make what the nodes produce; whether every value that is read has a name and is produced once."""
        proto = self.origin.proto.graph
        produced: list[str] = []
        read = {info.name for info in proto.output}
        for node in proto.node:
            produced.extend(node.output)
            read.update(node.input)
        names = [name for name in produced if name]
        known = {*self.values, *names}
        if "" in self.values or len(known) < len(self.values) + len(names) or not read <= {*known, ""}:
            return False
        for name in names:
            self._make(name, self.declared.get(name))
        return all(info.name for info in proto.output)

    def _make(self, name: str, info: onnx.ValueInfoProto | None) -> ir.Value:
        """A new value, as it is declared."""
        if info is None:
            value = ir.Value(name=name)
        else:
            type_, shape = self._type(info)
            doc, texts = info.doc_string or None, _texts(info.metadata_props)
            value = ir.Value(name=name, type=type_, shape=shape, doc_string=doc, metadata_props=texts)
        self.values[name] = value
        return value

    def _declare(self, value: ir.Value, info: onnx.ValueInfoProto) -> ir.Value:
        """What a message declares of a value that is there already."""
        value.type, value.shape = self._type(info)
        value.doc_string = info.doc_string or None
        if info.metadata_props:
            value.metadata_props.update(_texts(info.metadata_props) or {})
        return value

    def _initializer(self, proto: onnx.TensorProto) -> ir.Value:
        """The value of a stored tensor; it may be an input, which callers can then leave out."""
        tensor, name = ir.serde.deserialize_tensor(proto), proto.name
        value = self.values.get(name)
        if value is None:
            info = self.declared.get(name)
            value = self._make(name, info)
            if info is None:
                value.type, value.shape = self._stored_type(proto, tensor)
        value.const_value = tensor
        return value

    def _stored_type(self, proto: onnx.TensorProto, tensor: ir.TensorProtocol) -> tuple[ir.TensorType, ir.Shape]:
        """The type and shape of a tensor that no message declares."""
        key = (proto.data_type, *proto.dims)
        known = self._stored.get(key)
        if known is None:
            known = self._stored[key] = (ir.TensorType(tensor.dtype), ir.Shape(proto.dims, frozen=True))
        return known

    def _type(self, info: onnx.ValueInfoProto) -> tuple[Any, ir.Shape | None]:
        """The type and shape that a message declares: the same objects wherever they are the same."""
        key = info.type.SerializeToString()
        known = self._types.get(key)
        if known is None:
            known = self._types[key] = (
                ir.serde.deserialize_type_proto_for_type(info.type),
                ir.serde.deserialize_type_proto_for_shape(info.type),
            )
        self.origin.infos[info.name] = (info, *known)
        return known

    def _node(self, proto: onnx.NodeProto) -> ir.Node | None:
        """A node; None where it holds a graph, or runs on several devices."""
        values, attributes = self.values, []
        for attribute in proto.attribute:
            if attribute.type in GRAPHS:
                return None
            attributes.append(self._attribute(attribute))
        if proto.device_configurations:
            return None
        node = ir.Node(
            proto.domain,
            proto.op_type,
            [values[name] if name else None for name in proto.input],
            attributes,
            overload=proto.overload,
            outputs=[values[name] if name else ir.Value(name="") for name in proto.output],
            name=proto.name,
            doc_string=proto.doc_string or None,
            metadata_props=_texts(proto.metadata_props),
        )
        self.origin.nodes[node] = (proto, dict(node.attributes.data))
        return node

    def _attribute(self, proto: onnx.AttributeProto) -> ir.Attr:
        """An attribute, the same object wherever it is the same."""
        if proto.type in LARGE:
            return ir.serde.deserialize_attribute(proto)
        key = proto.SerializeToString()
        known = self._attributes.get(key)
        if known is None:
            known = self._attributes[key] = ir.serde.deserialize_attribute(proto)
        return known


def _given(proto: Any, name: str) -> Any:
    """A field of a message, None where it is not there."""
    return getattr(proto, name) if proto.HasField(name) else None


def _texts(entries: Sequence[onnx.StringStringEntryProto]) -> dict[str, str] | None:
    return {entry.key: entry.value for entry in entries} if entries else None
