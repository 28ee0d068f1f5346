"""Whether the operators of an ONNX file are what the standard says: as many operands, and attributes of the right kind.

Everything behind this takes an operator at its word: a MatMul has two operands, an axis is a number. A runtime
refuses what is not so, and so does this, before any work. Operators that the standard does not know pass.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import onnx

from bnfold.errors import UnreadableError
from bnfold.loading.onnxbounds import every_graph
from bnfold.wording import printable

AGAIN = "Download or export it again."
STANDARD = ("", "ai.onnx")
FIELDS = {
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    onnx.AttributeProto.TYPE_PROTO: "tp",
}


def check_operators(proto: onnx.ModelProto, name: str) -> None:
    """Whether every operator of the standard is used as the standard says.

    Args:
        proto: The model as it was parsed, within bounds.
        name: What errors call its file.

    Raises:
        UnreadableError: One is not.
    """
    opsets = _opsets(proto.opset_import, name)
    for graph in every_graph(proto, name):
        versions = _opsets(graph.opset_import, name) if isinstance(graph, onnx.FunctionProto) else opsets
        for node in graph.node:
            wrong = _wrong(node, versions)
            if wrong:
                shown = printable(node.name or node.op_type)
                raise UnreadableError(f"{name} is a damaged ONNX file: '{shown}' {wrong}", AGAIN)


def _opsets(imports: Any, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for opset in imports:
        domain = "" if opset.domain in STANDARD else opset.domain
        if domain in found:
            raise UnreadableError(f"{name} is a damaged ONNX file: it names two opsets of '{printable(domain)}'", AGAIN)
        if not 0 < opset.version < 2**31:
            raise UnreadableError(f"{name} is a damaged ONNX file: it names opset {opset.version}", AGAIN)
        found[domain] = opset.version
    return found


def _wrong(node: onnx.NodeProto, versions: Mapping[str, int]) -> str:
    """What is wrong with an operator, in words; nothing where nothing is."""
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names) or "" in names:
        return "has an attribute twice, or one without a name"
    if any(not device.configuration_id for device in node.device_configurations):
        return "has a configuration of devices without a name"
    for attribute in node.attribute:
        field = FIELDS.get(attribute.type)
        if field and not attribute.ref_attr_name and not attribute.HasField(field):
            return f"has an empty attribute '{printable(attribute.name)}'"
    domain = "" if node.domain in STANDARD else node.domain
    if not domain and domain not in versions:
        return f"({printable(node.op_type)}) is an operator of the standard, of which no opset is named"
    schema = _schema(node.op_type, domain, versions[domain]) if domain in versions else None
    if schema is None:
        return ""
    inputs, outputs, required, attributes, needed = schema
    if not inputs[0] <= len(node.input) <= inputs[1]:
        return f"({printable(node.op_type)}) has {len(node.input)} operands"
    if not outputs[0] <= len(node.output) <= outputs[1]:
        return f"({printable(node.op_type)}) has {len(node.output)} results"
    if any(index < len(node.input) and not node.input[index] for index in required):
        return f"({printable(node.op_type)}) lacks an operand"
    for attribute in node.attribute:
        kind = attributes.get(attribute.name)
        if kind is not None and (kind != attribute.type or not _is_text(attribute)):
            return f"({printable(node.op_type)}) has an attribute '{printable(attribute.name)}' of another kind"
    missing = needed - set(names)
    return f"({printable(node.op_type)}) lacks the attribute '{min(missing)}'" if missing else ""


def _kind(attribute: Any) -> int:
    """The number of an attribute's type, which is that of the message."""
    return int(attribute.type.value)


def _is_text(attribute: onnx.AttributeProto) -> bool:
    """Whether what is a text can be read as one."""
    try:
        return all(text.decode("utf-8") is not None for text in (attribute.s, *attribute.strings))
    except UnicodeDecodeError:
        return False


Signature = tuple[tuple[int, int], tuple[int, int], tuple[int, ...], dict[str, int], frozenset[str]]


@functools.lru_cache(maxsize=4096)
def _schema(op_type: str, domain: str, version: int) -> Signature | None:
    """Numbers of operands and results, which operands there must be, and the kinds of attributes."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except (onnx.defs.SchemaError, TypeError):  # a version that is no number of 32 bits
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    return (
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        tuple(index for index, operand in enumerate(schema.inputs) if operand.option == single),
        {key: _kind(attribute) for key, attribute in schema.attributes.items()},
        frozenset(key for key, attribute in schema.attributes.items() if attribute.required),
    )
