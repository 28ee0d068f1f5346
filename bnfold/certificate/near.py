"""Where in the model after an operator of the model before may be, and whether two operators ask for the same thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.certificate.meanings import is_linear
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
    names = set(one.attributes) | set(two.attributes)
    for name in names:
        a, b = one.attributes.get(name), two.attributes.get(name)
        if a is None or b is None:
            given = a if a is not None else b
            assert given is not None
            if _default(one, name) != _of_attribute(given):
                return False
            continue
        if a.type is not b.type or (
            a.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) and _of_attribute(a) != _of_attribute(b)
        ):
            return False
    return True


def _default(node: ir.Node, name: str) -> object:
    """What ONNX says an attribute is where a node does not; None where it says nothing."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, node.version or 18, node.domain)
    except onnx.defs.SchemaError:
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


def same_shape(one: ir.Value, two: ir.Value) -> bool:
    """Whether two values have the same shape, every size of which is known or has a name."""
    if one.shape is None or two.shape is None or len(one.shape) != len(two.shape):
        return False
    mine, theirs = ([dim if isinstance(dim, int) else dim.value for dim in shape] for shape in (one.shape, two.shape))
    return mine == theirs and None not in mine
