"""An `onnx_ir.Model` as a ModelProto again, with what did not change copied from the message it came from.

A node keeps its own message, with the names that its operands have today; tensors and the declarations of values keep
theirs. Only what is new is written by `onnx_ir`. Fields that nobody here knows stay with what they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
import onnx_ir as ir

from bnfold.frontends.from_proto import Origin


def write_proto(model: ir.Model, origin: Origin | None) -> onnx.ModelProto:
    """A model as a new message.

    Args:
        model: What became of the model that was read.
        origin: What it was read from; None for a model that `onnx_ir` read.
    """
    if origin is None:
        return ir.serde.serialize_model(model)
    result = onnx.ModelProto()
    _copy_fields(origin.proto, result, but=("graph",))
    result.ir_version = model.ir_version
    _copy_fields(origin.proto.graph, result.graph, but=("node", "initializer", "input", "output", "value_info"))
    _Writer(origin).write(model.graph, result.graph)
    return result


class _Writer:
    """One main graph being written."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._types: dict[tuple[int, int], onnx.TypeProto] = {}  # by the objects, which live as long as the model

    def write(self, graph: ir.Graph, proto: onnx.GraphProto) -> None:
        """Write down the nodes and values of a graph."""
        own = {value.name for value in graph.inputs}
        for value in graph.inputs:
            self._info(value, proto.input)
        for value in graph.initializers.values():
            self._tensor(value, proto.initializer)
            if value.name not in own:
                self._info(value, proto.value_info)
        for node in graph:
            self._node(node, proto.node)
            for value in node.outputs:
                if not value.is_graph_output() and _has_info(value):
                    self._info(value, proto.value_info)
        for value in graph.outputs:
            self._info(value, proto.output)

    def _node(self, node: ir.Node, into: Any) -> None:
        """A node: the message it came from, with the names of today."""
        proto, attributes = self.origin.nodes.get(node, (None, {}))
        if proto is None or node.attributes.data != attributes:
            into.append(ir.serde.serialize_node(node))
            return
        inputs = ["" if value is None else value.name or "" for value in node.inputs]
        outputs = [value.name or "" for value in node.outputs]
        made = into.add()
        made.CopyFrom(proto)
        if inputs != proto.input:
            made.input[:] = inputs
        if outputs != proto.output:
            made.output[:] = outputs

    def _info(self, value: ir.Value, into: Any) -> None:
        """What is declared of a value: the message it came from, while it says the same."""
        proto, type_, shape = self.origin.infos.get(value.name or "", (None, None, None))
        if proto is not None and value.type is type_ and value.shape is shape:
            into.append(proto)
        elif value.type is None or value.shape is None or value.metadata_props or value.doc_string:
            ir.serde.serialize_value_into(into.add(), value)
        else:
            key = (id(value.type), id(value.shape))
            if key not in self._types:
                self._types[key] = ir.serde.serialize_value(value).type
            into.add(name=value.name, type=self._types[key])

    def _tensor(self, value: ir.Value, into: Any) -> None:
        """A stored tensor; one that belongs to the caller keeps its name there."""
        tensor = value.const_value
        assert tensor is not None
        if isinstance(tensor, ir.serde.TensorProtoTensor):
            into.append(tensor.raw)
        else:
            ir.serde.serialize_tensor_into(into.add(), tensor)
        into[-1].name = value.name or ""


def _has_info(value: ir.Value) -> bool:
    """Whether there is anything to declare of a value."""
    return bool(value.name) and not (
        value.shape is None and value.type is None and not value.metadata_props and not value.doc_string
    )


def _copy_fields(source: Any, target: Any, but: Iterable[str]) -> None:
    """Copy all fields of a message that are there, except some."""
    for description, content in source.ListFields():
        if description.name in but:
            continue
        if isinstance(content, (str, bytes, int, float)):
            setattr(target, description.name, content)
        elif hasattr(content, "extend"):
            getattr(target, description.name).extend(content)
        else:
            getattr(target, description.name).CopyFrom(content)
