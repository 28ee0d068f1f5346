"""Where in the model after an operator of the model before may be, and whether two operators ask for the same thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.certificate.forms import Mismatch
from bnfold.certificate.meanings import is_linear
from bnfold.certificate.sides import Size, sizes_of
from bnfold.frontends.context import bodies

FURTHEST = 12  # linear operators between a value and what it is written in


def needed(graph: ir.Graph) -> set[ir.Node]:
    """The operators that the outputs depend on."""
    found: set[ir.Node] = set()
    queue = [v.producer() for v in graph.outputs]
    while queue:
        node = queue.pop()
        if node is None or node in found or node.graph is not graph:
            continue
        found.add(node)
        inner = [v for body in bodies(node) for n in _nodes(body) for v in n.inputs]
        inner += [v for body in bodies(node) for v in body.outputs]
        queue += [v.producer() for v in (*node.inputs, *inner) if v is not None]
    return found


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        for body in bodies(node):
            yield from _nodes(body)


def readers(values: Iterable[Any]) -> Iterator[ir.Node]:
    """Operators after that read values, then what reads those through linear operators, nearest first."""
    queue = [v for v in values if isinstance(v, ir.Value)]
    seen: set[ir.Node] = set()
    for _ in range(FURTHEST):
        following: list[ir.Value] = []
        for value in queue:
            for use in value.uses():
                if use.node in seen:
                    continue
                seen.add(use.node)
                yield use.node
                if is_linear(use.node):
                    following += use.node.outputs
        queue = following


def same_attributes(one: ir.Node, two: ir.Node) -> bool:
    """Whether attributes agree; those that only say how an operator slides are compared with its weights."""
    schemas = [_schema(node) for node in (one, two)]
    if not _same_meaning(*schemas):
        return False
    names = set(one.attributes) | set(two.attributes)
    for schema in schemas if one.version != two.version else ():
        names |= set() if schema is None else set(schema.attributes)
    for name in names:
        a, b = one.attributes.get(name), two.attributes.get(name)
        if a is None or b is None:
            mine, theirs = (
                _default(schema, name) if given is None else _of_attribute(given)
                for schema, given in zip(schemas, (a, b), strict=True)
            )
            if mine != theirs:
                return False
            continue
        if a.type is not b.type or (
            a.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) and _of_attribute(a) != _of_attribute(b)
        ):
            return False
    return True


REDEFINED = {"Hardmax": 13, "LogSoftmax": 13, "Softmax": 13, "GroupNormalization": 21}  # under the same signature


def _same_meaning(one: Any, two: Any) -> bool:
    """Whether two versions of an operator compute the same of the same operands and attributes."""
    if one is None or two is None or one.since_version == two.since_version:
        return True
    versions = one.since_version, two.since_version
    changed = REDEFINED.get(one.name)
    if changed is not None and min(versions) < changed <= max(versions):
        return False
    mine, theirs = ([operand.name for operand in schema.inputs] for schema in (one, two))
    return all(a == b for a, b in zip(mine, theirs, strict=False))


def _schema(node: ir.Node) -> Any:
    """The definition of an operator by ONNX; None where there is none."""
    import onnx

    try:
        return onnx.defs.get_schema(node.op_type, node.version or 18, node.domain)
    except onnx.defs.SchemaError:
        return None


def _default(schema: Any, name: str) -> object:
    """What ONNX says an attribute is where a node does not; None where it says nothing."""
    if schema is None:
        return None
    found = schema.attributes.get(name)
    if found is None or not found.default_value.name:
        return None
    return _of_attribute(ir.serde.deserialize_attribute(found.default_value))


def _of_attribute(attribute: ir.Attr) -> object:
    value = attribute.value
    if attribute.type is ir.AttributeType.FLOAT:
        return np.float32(value)  # as it is stored in a file
    if attribute.type is ir.AttributeType.FLOATS:
        return tuple(np.float32(v) for v in value)
    if attribute.type in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
        return tuple(value)
    if attribute.type is ir.AttributeType.TENSOR:
        array = value.numpy()
        return (array.dtype.str, array.shape, array.tobytes())
    return value


def trimmed(values: Iterable[ir.Value | None]) -> list[ir.Value | None]:
    """Operands without the optional ones at the end that are not there."""
    found = list(values)
    while found and found[-1] is None:
        found.pop()
    return found


def shared_sizes(before: ir.Graph, after: ir.Graph) -> set[str]:
    """Names that inputs of both graphs give the same sizes; all others are made up on each side."""
    mine, theirs = (
        {(v.name, i, size) for v in graph.inputs if v.shape for i, size in enumerate(sizes_of(v))}
        for graph in (before, after)
    )
    return {size for _, _, size in mine & theirs if isinstance(size, str)}


def demand_as_large(value: ir.Value, other: ir.Value) -> None:
    """Demands two values of one shape, as far as it is known: a tensor that is repeated is another one.

    Raises:
        Mismatch: They have different shapes.
    """
    if value.shape is None or other.shape is None:
        return
    mine, theirs = sizes_of(value), sizes_of(other)
    if len(mine) != len(theirs) or not all(map(_may_be, mine, theirs)):
        raise Mismatch(f"its shape is {_told(mine)} before and {_told(theirs)} after")


def _may_be(one: Size, two: Size) -> bool:
    """Whether two sizes may be the same; 1 only if it is said, as what has size 1 is repeated silently."""
    return one == two or not (1 in (one, two) or (isinstance(one, int) and isinstance(two, int)))


def _told(sizes: Iterable[Size]) -> str:
    return "×".join("?" if size is None else str(size) for size in sizes)
