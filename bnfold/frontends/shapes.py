"""Shapes and types where a model does not state them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from bnfold.frontends.context import FLOATS, bodies, nodes_within
from bnfold.frontends.forward import plain_result

SCALES = 16  # elements up to which floats may: the scales of a Resize
FEW = 4  # up to one operator in so many is inferred alone
DECIDING = 1024  # elements up to which a constant may decide a shape; larger ones are declared, not copied


def complete_shapes(model: ir.Model) -> bool:
    """Infer missing shapes and types in place, without touching large weights.

    What is plain to see comes first; the rest follows from ONNX's own rules.

    Returns:
        Whether something is known now that was not.
    """
    nodes = list(nodes_within(model.graph))
    unknown = [node for node in nodes if any(map(_incomplete, node.outputs))]
    missing = [node for node in unknown if not _see(node)]
    if len(missing) * FEW < len(nodes):
        missing = [node for node in missing if not _infer_alone(node, model)]
    if missing:
        _infer_together(model)
    return any(not any(map(_incomplete, node.outputs)) for node in unknown)


def _see(node: ir.Node) -> bool:
    """Give the result of an operator the type and shape that are plain to see; whether there are any."""
    found = plain_result(node)
    if found is None:
        return False
    [value] = node.outputs
    value.type = found[0] if value.type is None else value.type
    value.shape = found[1] if value.shape is None else value.shape
    return True


def _infer_alone(node: ir.Node, model: ir.Model) -> bool:
    """Infer the outputs of one operator whose inputs are known; whether that was possible."""
    version = model.opset_imports.get(node.domain)
    operands = [value for value in node.inputs if value is not None and value.name]
    if version is None or bodies(node) or any(value.dtype is None or value.shape is None for value in operands):
        return False
    data: dict[str, onnx.TensorProto] = {}
    for value in operands:
        tensor = value.const_value
        if tensor is not None and tensor.size <= (SCALES if tensor.dtype in FLOATS else DECIDING):
            data[value.name or ""] = ir.serde.serialize_tensor(tensor)
    types = {value.name or "": ir.serde.serialize_value(value).type for value in operands}
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        proto = ir.serde.serialize_node(node)
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, onnx.defs.SchemaError, ValueError):
        return False
    _take_types(node, found)
    return not any(map(_incomplete, node.outputs))


def _infer_together(model: ir.Model) -> None:
    """Infer what is missing in the whole model."""
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    _declare(model.graph, proto.graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return  # what has no shape is a boundary, which is always right
    _take_over(model.graph, inferred.graph)


def _incomplete(value: ir.Value) -> bool:
    """Whether a value that may be a feature has no known shape."""
    return bool(value.name) and (value.dtype is None or (value.dtype in FLOATS and value.shape is None))


def _declare(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    """Write a graph down for inference: nodes, inputs, outputs, and large constants by their shape alone."""
    proto.name = graph.name or "graph"
    for node in graph:
        ir.serde.serialize_node_into(proto.node.add(), node)
        for value in node.outputs:
            if value.name and value.shape is not None and value.dtype is not None and not value.is_graph_output():
                ir.serde.serialize_value_into(proto.value_info.add(), value)
    for value in graph.inputs:
        ir.serde.serialize_value_into(proto.input.add(), value)
    for value in graph.outputs:
        ir.serde.serialize_value_into(proto.output.add(), value)
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input():
            continue
        if tensor.size <= (SCALES if tensor.dtype in FLOATS else DECIDING):
            ir.serde.serialize_tensor_into(proto.initializer.add(), tensor)
        else:
            dims = [d for d in tensor.shape if isinstance(d, int)]
            proto.input.add().CopyFrom(onnx.helper.make_tensor_value_info(value.name or "", tensor.dtype.value, dims))


def _take_over(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    """Copy what was inferred to the values that lack it, in the graph and in its bodies."""
    known = {info.name: info.type for info in (*proto.value_info, *proto.output)}
    for node, node_proto in zip(graph, proto.node, strict=True):
        _take_types(node, known)
        for name, body in ((a.name, a.g) for a in node_proto.attribute if a.type == onnx.AttributeProto.GRAPH):
            _take_over(node.attributes[name].as_graph(), body)


def _take_types(node: ir.Node, known: Mapping[str, onnx.TypeProto]) -> None:
    """Give a node's outputs the types and shapes they lack."""
    for value in node.outputs:
        found = known.get(value.name or "")
        if found is None or not found.HasField("tensor_type"):
            continue
        if value.dtype is None and found.tensor_type.elem_type:
            value.dtype = ir.DataType(found.tensor_type.elem_type)
        if value.shape is None and found.tensor_type.HasField("shape"):
            value.shape = ir.Shape([_size(d) for d in found.tensor_type.shape.dim])


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None
