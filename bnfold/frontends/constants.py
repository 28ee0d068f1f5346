"""Constant folding, and only that: what is the same at every run becomes an initializer.

Exporters leave weights and biases behind as little programs (`Expand(CastLike(0, x))`, `Reshape(slope)`), which hide
them from everyone. A CastLike of a constant needs only the *type* of its other input, a Shape only static sizes, and
the target of a Reshape may hold one size that is not known. Nodes are removed only if this left them without a reader.

A chain of floats is computed in float64 from its first operator to its last, and rounded where it ends or is cast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from bnfold.frontends.context import FLOATS, ONNX_DOMAINS, bodies, graphs_within, only_output, value_names
from bnfold.frontends.edit import Store, in_memory
from bnfold.frontends.evaluate import IMPURE, MOVING, evaluated, normalised, static_shape, stored
from bnfold.frontends.targets import settled_target, take_sizes
from bnfold.units.affine import Array, round_once

ROUNDING = {"Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike", "Shape", "Size"}  # they name their type
ALLOWED = 1 << 27  # elements that all constants of a graph may make together,
ALLOWED_PER_STORED = 16  # and so many more for each that is stored
FIRST_WITH_CONSTANTS = 4  # before this IR version, every initializer had to be a graph input as well


def fold_constants(
    model: ir.Model, names: set[str] | None = None, store: Store = in_memory
) -> dict[ir.Node, tuple[ir.Node, ...]]:
    """Fold constants in place, in the main graph and in the bodies of control flow.

    Args:
        model: The model; its inputs, outputs and remaining nodes keep their names.
        names: Its value names where they are known already; new ones are added.
        store: Keeps what constants become.

    Returns:
        The BatchNorms that normalised constants (weight standardisation), and the operators that read what became of
        them.
    """
    if model.ir_version is not None and model.ir_version < FIRST_WITH_CONSTANTS:
        RemoveInitializersFromInputsPass()(model)
        model.ir_version = FIRST_WITH_CONSTANTS
    norms: dict[ir.Node, tuple[ir.Node, ...]] = {}
    names = value_names(model.graph) if names is None else names
    for graph in graphs_within(model.graph):
        folder = Folder(graph, model.opset_imports.get("", 18), names, store)
        folder.run()
        norms.update(folder.norms())
    return norms


class Folder:
    """One graph whose constants are folded."""

    def __init__(self, graph: ir.Graph, opset: int, names: set[str], store: Store = in_memory) -> None:
        self.graph = graph
        self.store = store
        self.opset = opset
        self.names = names
        self._norms: list[ir.Node] = []
        self._origins: dict[ir.Value, set[ir.Node]] = {}  # the BatchNorms that a folded constant went through
        self._exact: dict[ir.Value, Array] = {}  # folded constants before they were rounded
        stored_elements = sum(v.const_value.size for v in graph.initializers.values() if v.const_value is not None)
        self._left = ALLOWED + ALLOWED_PER_STORED * stored_elements  # elements that may still be made

    def run(self) -> None:
        """Fold every node that can be, in topological order."""
        for node in list(self.graph):
            if node.domain not in ONNX_DOMAINS or node.graph is not self.graph:
                continue
            if node.op_type == "Reshape":
                self._settle_target(node)
            if node.op_type == "Constant":
                tensor = stored(node)
                if tensor is not None:
                    self._replace(node, tensor)
                continue
            array = self._evaluate(node)
            if array is not None:
                self._replace_by_array(node, array)

    def norms(self) -> dict[ir.Node, tuple[ir.Node, ...]]:
        """The BatchNorms that were folded as constants, and who reads the result."""
        readers: dict[ir.Node, dict[ir.Node, None]] = {norm: {} for norm in self._norms}
        for value, origins in self._origins.items():
            for norm in origins:
                readers[norm].update(dict.fromkeys(use.node for use in value.uses()))
        return {norm: tuple(nodes) for norm, nodes in readers.items()}

    def const(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The array behind a value that is the same at every run."""
        if value is None or value.const_value is None or not self.is_const(value):
            return None
        return value.const_value.numpy()

    @staticmethod
    def is_const(value: ir.Value) -> bool:
        """Whether a value is the same at every run."""
        return value.is_initializer() and value.const_value is not None and not value.is_graph_input()

    def _evaluate(self, node: ir.Node) -> NDArray[Any] | None:
        """The result of a node that is the same at every run, else None."""
        if node.op_type == "Shape":
            return static_shape(node)
        if node.op_type == "CastLike":
            return self._cast_like(node)
        if node.op_type in IMPURE or not node.inputs or not all(v is None or self.is_const(v) for v in node.inputs):
            return None
        if bodies(node) or not only_output(node) or self._left < 0:
            return None
        wide = node.op_type not in ROUNDING and (
            node.op_type not in MOVING or any(v in self._exact for v in node.inputs)
        )
        arrays = [None if v is None else self._wide(v) if wide else self.const(v) for v in node.inputs]
        result = (
            normalised(node, arrays) if node.op_type == "BatchNormalization" else evaluated(node, arrays, self.opset)
        )
        if result is None or (wide and result.dtype == np.float64 and self._declared(node) in FLOATS):
            return result
        declared = node.outputs[0].dtype
        return result if declared is None or declared.numpy() == result.dtype else None

    def _wide(self, value: ir.Value) -> NDArray[Any] | None:
        """A constant, as float64 before any rounding where it is a float."""
        if value in self._exact:
            return self._exact[value]
        array = self.const(value)
        return array if array is None or value.dtype not in FLOATS else array.astype(np.float64)

    @staticmethod
    def _declared(node: ir.Node) -> ir.DataType | None:
        """The type of a node's result: as declared, else that of the float it reads."""
        floats = [v.dtype for v in node.inputs if v is not None and v.dtype in FLOATS]
        declared = node.outputs[0].dtype
        return declared if declared is not None or not floats or node.op_type in ROUNDING else floats[0]

    def _cast_like(self, node: ir.Node) -> NDArray[Any] | None:
        array, like = self.const(node.inputs[0]), node.inputs[1]
        if array is None or like is None or like.dtype is None:
            return None
        return array.astype(like.dtype.numpy())

    def _replace_by_array(self, node: ir.Node, array: NDArray[Any]) -> None:
        """Put what a node makes of constants in its place, rounded to the type it declares."""
        self._left -= array.size
        declared, exact = self._declared(node), None
        dtype = ir.DataType.from_numpy(array.dtype)
        if declared is not None and declared.numpy() == array.dtype:
            dtype = declared
        elif declared in FLOATS and array.dtype == np.float64:
            dtype, exact, array = declared, array, round_once(array, declared.numpy())
        origins = {norm for v in node.inputs if v is not None for norm in self._origins.get(v, ())}
        stored_array = self.store(np.asarray(array, order="C"))
        value = self._replace(node, ir.Tensor(stored_array, dtype=dtype, name=node.outputs[0].name))
        if value is None:
            return
        if exact is not None:
            self._exact[value] = self.store(exact)
        if node.op_type == "BatchNormalization":
            self._norms.append(node)
            origins.add(node)
        if origins:
            self._origins[value] = origins

    def _replace(self, node: ir.Node, tensor: ir.TensorProtocol) -> ir.Value | None:
        """Put an initializer in a node's place; None where the node must stay."""
        y = node.outputs[0]
        if y.is_graph_output() or y.name is None:
            return None
        name = y.name
        y.name = self._fresh(name)
        if tensor.name != name:  # one that belongs to the caller's model keeps its own
            tensor = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
        shape = ir.Shape([int(size) for size in tensor.shape])  # type: ignore[arg-type]
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self.graph.register_initializer(value)
        y.replace_all_uses_with(value)
        self._drop(node)
        return value

    def _fresh(self, wanted: str) -> str:
        name, n = f"{wanted}_folded", 2
        while name in self.names:
            name, n = f"{wanted}_folded{n}", n + 1
        self.names.add(name)
        return name

    def _drop(self, node: ir.Node) -> None:
        """Remove a node without readers, and what only it read."""
        if node.graph is not self.graph or any(v.uses() or v.is_graph_output() for v in node.outputs):
            return
        inputs = [v for v in node.inputs if v is not None]
        self.graph.remove(node, safe=True)
        for value in dict.fromkeys(inputs):
            if value.uses() or value.is_graph_output() or value.is_graph_input():
                continue
            producer = value.producer()
            if producer is not None:
                self._drop(producer)
            elif value.is_initializer() and value.name is not None and value.graph is self.graph:
                self.graph.initializers.pop(value.name)

    def _settle_target(self, node: ir.Node) -> None:
        """Make the target of a Reshape a constant where it may be one, and its result as known as its target."""
        target = node.inputs[1] if len(node.inputs) > 1 else None
        producer = None if target is None else target.producer()
        sizes = None if target is None else settled_target(target, self.const)
        if target is None or sizes is None:
            return
        take_sizes(node.outputs[0], sizes)
        if producer is None:
            return
        name = self._fresh(f"{target.name}")
        tensor = ir.Tensor(sizes, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(sizes.shape), const_value=tensor
        )
        self.graph.register_initializer(value)
        node.replace_input_with(1, value)
        self._drop(producer)
