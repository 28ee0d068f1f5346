"""An ONNX model as a view: constants are not drawn, bodies of control flow stand in a module of their operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import InlinePass

from bnfold.frontends.context import ONNX_DOMAINS, array_of, attr, bodies
from bnfold.frontends.onnx import label_nodes
from bnfold.frontends.paths import module_path
from bnfold.reporting.picture.views import Operator, Path, View, Weight, in_modules, shape_text


def view_onnx(model: ir.Model) -> View:
    """What there is to draw of a model, by the names that a plan of it uses; the model is not changed."""
    if model.functions:
        model = InlinePass()(model.clone()).model
    labels: dict[ir.Node, str] = {}
    label_nodes(model, labels)
    return _Viewer(labels).view(model.graph)


class _Viewer:
    """A walk over a graph and the bodies within it.

    Attributes:
        labels: The name of every node.
    """

    def __init__(self, labels: dict[ir.Node, str]) -> None:
        self.labels = labels
        self._operators: list[Operator] = []
        self._made: dict[ir.Value, int] = {}
        self._constant: set[ir.Value] = set()

    def view(self, graph: ir.Graph) -> View:
        """The whole graph."""
        for value in graph.inputs:
            if value.name not in graph.initializers:
                self._made[value] = self._put(
                    Operator(_unique(value), "Input", (), (), _shape(value), None, value.name or "")
                )
        self._walk(graph, ())
        for value in graph.outputs:
            reads = (self._made[value],) if value in self._made else ()
            self._put(Operator(_unique(value), "Output", reads, (), _shape(value), None, value.name or ""))
        return in_modules(self._operators)

    def _walk(self, graph: ir.Graph, inside: Path) -> None:
        for node in graph:
            reads = [self._made[value] for value in node.inputs if value is not None and value in self._made]
            inner = bodies(node)
            if self._is_constant(node) and not inner:
                self._constant.update(node.outputs)
                continue
            label = self.labels[node]
            for body in inner:
                for value in body.inputs:
                    self._made.update({value: reads[0]} if reads else {})
                self._walk(body, (*inside, *module_path(node, label), label))
                reads += [self._made[value] for value in body.outputs if value in self._made]
            first = next((value for value in node.outputs if value.name), None)
            path = (*inside, *module_path(node, label))
            reads = list(dict.fromkeys(reads))
            shape = "" if first is None else _shape(first)
            name = "" if first is None else first.name or ""
            at = self._put(Operator(label, _op(node), tuple(reads), path, shape, weight_of(node), name))
            self._made.update(dict.fromkeys(node.outputs, at))

    def _put(self, operator: Operator) -> int:
        self._operators.append(operator)
        return len(self._operators) - 1

    def _is_constant(self, node: ir.Node) -> bool:
        """Whether a node computes the same at every run, and is no BatchNorm, of which a plan speaks."""
        if node.op_type == "BatchNormalization":
            return False
        if not any(value is not None for value in node.inputs):
            return node.op_type == "Constant"
        return all(value is None or value in self._constant or _stored(value) for value in node.inputs)


def weight_of(node: ir.Node) -> Weight | None:
    """The constant weight of a linear operator; None for any other."""
    if node.domain not in ONNX_DOMAINS or len(node.inputs) < 2:
        return None
    index, axis = 1, 0
    if node.op_type == "ConvTranspose":
        axis = 1
    elif node.op_type == "Gemm":
        axis = 0 if attr(node, "transB", 0) else 1
    elif node.op_type == "MatMul":
        index, axis = (1, -1) if _stored(node.inputs[1]) else (0, -2)
    elif node.op_type != "Conv":
        return None
    read = _array(node.inputs[index])
    bias = _array(node.inputs[2]) if len(node.inputs) > 2 else None
    return None if read is None else Weight(read, axis, bias)


def _array(value: ir.Value | None) -> Callable[[], NDArray[Any]] | None:
    tensor = value.const_value if value is not None and _stored(value) else None
    return None if tensor is None else lambda: array_of(tensor)


def _stored(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.const_value is not None and not value.is_graph_input()


def _op(node: ir.Node) -> str:
    return node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"


def _unique(value: ir.Value) -> str:
    return f"{'output' if value.is_graph_output() else 'input'} {value.name or ''}"


def _shape(value: ir.Value) -> str:
    return shape_text(
        None if value.shape is None else [size if isinstance(size, int) else size.value for size in value.shape]
    )
