"""What a reader of ONNX operators may ask: constants, shapes, attributes, names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.frontends.edit import Store, in_memory
from bnfold.reasons import Reason
from bnfold.units.affine import Array
from bnfold.units.graph import Op, Rigid, Shape, Value

FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
PRECISION = {ir.DataType.FLOAT: 24, ir.DataType.DOUBLE: 53, ir.DataType.FLOAT16: 11, ir.DataType.BFLOAT16: 8}
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
ONNX_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Norm:
    """What a BatchNormalization does to its channels at inference.

    Attributes:
        scale: float64[C].
        shift: float64[C].
        spread: float64[C], standard deviation of its input, `sqrt(running_var + eps)`.
        finite: Whether all of its numbers are.
    """

    scale: Array
    shift: Array
    spread: Array
    finite: bool


class Context:
    """One graph being read.

    Attributes:
        graph: The ONNX graph.
        shapes: Shapes of native and intermediate values, unknown sizes under a name of their own.
        labels: The unique display name of every node.
        kept: BatchNorms that are no constant affine, with the reason, by label.
        norms: The BatchNormalizations with constant parameters.
        norm_affine: Whether the scale and bias of LayerNormalization and its kin may go.
        names: Every value name of the whole model: a body's value may not hide one of an enclosing graph.
        store: Keeps new weights.
        excluded: The BatchNorms that the caller wants to keep.
    """

    def __init__(
        self,
        graph: ir.Graph,
        labels: dict[ir.Node, str],
        names: set[str],
        norm_affine: bool = False,
        store: Store = in_memory,
        excluded: frozenset[ir.Node] = frozenset(),
    ) -> None:
        self.graph = graph
        self.store = store
        self.norm_affine = norm_affine
        self.excluded = excluded
        self.names = names
        self.shapes: dict[Value, Shape] = {}
        self.labels = labels
        self.kept: dict[str, Reason] = {}
        self.norms: dict[ir.Node, Norm] = {}
        self.skip: set[ir.Node] = set()  # nodes that were read together with an earlier one
        self._arrays: dict[ir.Value, NDArray[Any]] = {}
        self._is_const: dict[ir.Value, bool] = {}

    def const(self, value: ir.Value | None) -> NDArray[Any] | None:
        """A value's array where it is the same at every run, else None."""
        if value is None or not self.is_const(value):
            return None
        array = self._arrays.get(value)
        if array is None:
            assert value.const_value is not None
            array = self._arrays[value] = array_of(value.const_value)
        return array

    def is_const(self, value: ir.Value | None) -> bool:
        """Whether a value is an initializer that callers cannot override."""
        if value is None:
            return False
        known = self._is_const.get(value)
        if known is None:
            known = value.is_initializer() and value.const_value is not None and not value.is_graph_input()
            self._is_const[value] = known
        return known

    def constants(self, values: Iterable[ir.Value | None]) -> list[NDArray[Any] | None]:
        """`const` for several values."""
        return [self.const(value) for value in values]

    def shape(self, value: ir.Value) -> Shape | None:
        """The shape of a value, None where its rank is unknown."""
        known = self.shapes.get(value)
        if known is not None or value.shape is None:
            return known
        sizes: list[int | str | None] = []
        for i, dim in enumerate(value.shape):
            size = dim if isinstance(dim, int) else dim.value
            sizes.append(size if size is not None else f"?{id(value)}.{i}")
        known = self.shapes[value] = tuple(sizes)
        return known

    def rank(self, value: ir.Value) -> int | None:
        """The number of axes, where it is known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def is_float(self, value: ir.Value) -> bool:
        """Whether a value holds floats whose weights can be rewritten."""
        return value.dtype in FLOATS

    def extra(self, node: ir.Node, tag: str, shape: Sequence[int | str | None]) -> Value:
        """A value that exists only in the solver's graph."""
        key = (node, tag)
        self.shapes[key] = tuple(shape)
        return key

    def label(self, node: ir.Node) -> str:
        """The node's unique name."""
        return self.labels[node]

    def rigid(self, node: ir.Node, reason: Reason) -> list[Op]:
        """A node that keeps all units around it."""
        xs = tuple(v for v in node.inputs if v is not None and not self.is_const(v))
        return [Rigid(self.label(node), xs, tuple(node.outputs), reason)]


def array_of(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """The numbers of a tensor. Plain float32, which is most, need no look at all the ways to store a tensor."""
    if type(tensor) is ir.serde.TensorProtoTensor:
        proto = tensor.raw
        if proto.data_type == onnx.TensorProto.FLOAT and proto.HasField("raw_data"):
            return np.asarray(np.frombuffer(proto.raw_data, "<f4").reshape(proto.dims))
    return np.asarray(tensor.numpy())


def nodes_within(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of a graph and of the bodies within it, in order."""
    for node in graph:
        yield node
        for body in bodies(node):
            yield from nodes_within(body)


def graphs_within(graph: ir.Graph) -> list[ir.Graph]:
    """A graph, then the bodies within it."""
    return [graph, *(inner for node in graph for body in bodies(node) for inner in graphs_within(body))]


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs among a node's attributes: the branches of If, the bodies of Loop and Scan."""
    if node.op_type not in CONTROL_FLOW and node.domain in ONNX_DOMAINS:
        return []
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            found.append(attribute.value)
        elif attribute.type is ir.AttributeType.GRAPHS:
            found += attribute.value
    return found


def drop_unread(values: Iterable[ir.Value]) -> None:
    """Remove initializers that nothing reads any more."""
    for value in dict.fromkeys(values):
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        if value.is_initializer() and value.graph is not None and value.name is not None:
            value.graph.initializers.pop(value.name)


def value_names(graph: ir.Graph) -> set[str]:
    """The names of all values in a graph and in the bodies within it."""
    names: set[str | None] = set()
    for inner in graphs_within(graph):
        names.update(inner.initializers)
        names.update([value.name for value in inner.inputs])
        for node in inner:
            names.update([value.name for value in (*node.inputs, *node.outputs) if value is not None])
    return {name for name in names if name}


def attr(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's value, or a default."""
    found = node.attributes.data.get(name)  # the wrapper's own `get` raises and catches a KeyError
    return default if found is None or found.value is None else found.value


def ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """A list-of-integers attribute."""
    return tuple(int(v) for v in attr(node, name, default))


def only_output(node: ir.Node) -> bool:
    """Whether nothing but the first output is there to be used."""
    return all(not v.name or (not v.uses() and not v.is_graph_output()) for v in node.outputs[1:])


def not_at_inference(node: ir.Node) -> Reason | None:
    """Why a BatchNormalization is no constant affine by its attributes, in any opset."""
    version = node.version or 14
    if version < 7 and not attr(node, "is_test", 0):
        return Reason.TRAINING
    if 7 <= version < 14 and any(v.name for v in node.outputs[1:]):  # there, more outputs are what asks for training
        return Reason.TRAINING
    if attr(node, "training_mode", 0) or not only_output(node):
        return Reason.TRAINING
    return None if attr(node, "spatial", 1) else Reason.BOUNDARY


def squeeze_constant(array: NDArray[Any]) -> NDArray[np.float64]:
    """A constant as float64, its axis reduced to size 1 where it does not vary along it."""
    wide = np.asarray(array).astype(np.float64)
    for axis, size in enumerate(wide.shape):
        if size > 1:
            first = wide.take([0], axis=axis)
            if np.array_equal(np.broadcast_to(first, wide.shape), wide):
                wide = first
    return wide
