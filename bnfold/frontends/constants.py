"""Constant folding, and only that: what is the same at every run becomes an initializer.

Exporters leave weights and biases behind as little programs (`Expand(CastLike(0, x))`, `Reshape(slope)`), which hide
them from everyone. A CastLike of a constant needs only the *type* of its other input, a Shape only static sizes, and
the target of a Reshape may hold one size that is not known. Nodes are removed only if this left them without a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from bnfold.affine import batch_norm_affine, round_once
from bnfold.frontends.context import (
    ONNX_DOMAINS,
    attr,
    bodies,
    graphs_within,
    not_at_inference,
    only_output,
    value_names,
)
from bnfold.frontends.targets import settled_target, take_sizes

FIRST_WITH_CONSTANTS = 4  # before this IR version, every initializer had to be a graph input as well
LARGEST = 1 << 26  # elements of a folded result; an Expand may ask for any number
IMPURE = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Dropout",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan",
}  # fmt: skip

# What exporters write most, so that small models do not wait for the reference evaluator.
DIRECT: dict[str, Callable[..., NDArray[Any]]] = {
    "Expand": lambda x, shape: x * np.ones([int(n) for n in shape], dtype=x.dtype),
    "Mul": np.multiply,
    "Add": np.add,
    "Sub": np.subtract,
}


def fold_constants(model: ir.Model) -> dict[ir.Node, tuple[ir.Node, ...]]:
    """Fold constants in place, in the main graph and in the bodies of control flow.

    Args:
        model: The model; its inputs, outputs and remaining nodes keep their names.

    Returns:
        The BatchNorms that normalised constants (weight standardisation), and the operators that read what became of
        them.
    """
    if model.ir_version is not None and model.ir_version < FIRST_WITH_CONSTANTS:
        RemoveInitializersFromInputsPass()(model)
        model.ir_version = FIRST_WITH_CONSTANTS
    norms: dict[ir.Node, tuple[ir.Node, ...]] = {}
    names = value_names(model.graph)
    for graph in graphs_within(model.graph):
        folder = Folder(graph, model.opset_imports.get("", 18), names)
        folder.run()
        norms.update(folder.norms())
    return norms


class Folder:
    """One graph whose constants are folded."""

    def __init__(self, graph: ir.Graph, opset: int, names: set[str]) -> None:
        self.graph = graph
        self.opset = opset
        self.names = names
        self._norms: list[ir.Node] = []
        self._origins: dict[ir.Value, set[ir.Node]] = {}  # the BatchNorms that a folded constant went through

    def run(self) -> None:
        """Fold every node that can be, in topological order."""
        for node in list(self.graph):
            if node.domain not in ONNX_DOMAINS or node.graph is not self.graph:
                continue
            if node.op_type == "Reshape":
                self._settle_target(node)
            array = _stored(node) if node.op_type == "Constant" else self._evaluate(node)
            if array is not None:
                self._replace(node, array)

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
            return _static_shape(node)
        if node.op_type == "CastLike":
            return self._cast_like(node)
        if node.op_type in IMPURE or not node.inputs or not all(v is None or self.is_const(v) for v in node.inputs):
            return None
        if bodies(node) or not only_output(node):
            return None
        arrays = [None if v is None else self.const(v) for v in node.inputs]
        if node.op_type == "BatchNormalization":
            return _normalise(node, arrays)
        size = self._result_size(node, arrays)
        return None if size is None or size > LARGEST else self._run(node, arrays)

    def _cast_like(self, node: ir.Node) -> NDArray[Any] | None:
        array, like = self.const(node.inputs[0]), node.inputs[1]
        if array is None or like is None or like.dtype is None:
            return None
        return array.astype(like.dtype.numpy())

    def _result_size(self, node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> int | None:
        """An upper bound on the number of elements, before anything is computed."""
        if node.op_type in (
            "Expand",
            "Tile",
            "ConstantOfShape",
            "Range",
            "Resize",
            "Upsample",
            "Pad",
            "OneHot",
            "EyeLike",
        ):
            known = node.outputs[0].shape
            if known is not None and known.is_static():
                return int(np.prod(known.numpy(), dtype=np.float64))
            target = arrays[-1] if node.op_type in ("Expand", "ConstantOfShape") else None
            return (
                None
                if target is None
                else int(np.prod(target, dtype=np.float64)) * max(a.size for a in arrays if a is not None)
            )
        return 0

    def _run(self, node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
        """Evaluate one node with the reference implementation of its operator."""
        direct = DIRECT.get(node.op_type)
        if direct is not None and all(a is not None for a in arrays):
            return direct(*arrays)
        proto = ir.serde.serialize_node(node)
        feeds = {v.name or "": a for v, a in zip(node.inputs, arrays, strict=True) if v is not None and a is not None}
        try:
            [result] = ReferenceEvaluator(proto, opsets={"": self.opset}).run(None, feeds)
        except Exception:  # whatever the reference cannot do stays as it is: folding is never owed
            return None
        if not isinstance(result, (np.ndarray, np.generic)) or result.dtype.kind in "OUS":
            return None  # a sequence, or strings
        declared = node.outputs[0].dtype
        if declared is not None and declared.numpy() != result.dtype:
            return None
        return np.asarray(result)

    def _replace(self, node: ir.Node, array: NDArray[Any]) -> None:
        """Put an initializer in a node's place."""
        y = node.outputs[0]
        if y.is_graph_output() or y.name is None:
            return
        dtype = (
            y.dtype if y.dtype is not None and y.dtype.numpy() == array.dtype else ir.DataType.from_numpy(array.dtype)
        )
        name = y.name
        y.name = self._fresh(name)
        tensor = ir.Tensor(np.asarray(array, order="C"), dtype=dtype, name=name)
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.graph.register_initializer(value)
        origins = {norm for v in node.inputs if v is not None for norm in self._origins.get(v, ())}
        if node.op_type == "BatchNormalization":
            self._norms.append(node)
            origins.add(node)
        if origins:
            self._origins[value] = origins
        y.replace_all_uses_with(value)
        self._drop(node)

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


def _stored(node: ir.Node) -> NDArray[Any] | None:
    """What a Constant holds; None for strings and sparse tensors."""
    tensor = node.attributes.get("value")
    if tensor is not None:
        array: NDArray[Any] = tensor.as_tensor().numpy()
        return None if array.dtype.kind in "OUS" else array
    for name, dtype in (("value_int", "i8"), ("value_ints", "i8"), ("value_float", "f4"), ("value_floats", "f4")):
        if name in node.attributes:
            return np.asarray(node.attributes[name].value, dtype=dtype)
    return None


def _normalise(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """A BatchNorm of a constant at inference, in float64, rounded once."""
    given = [a for a in arrays if a is not None]
    if len(given) != 5 or given[0].ndim < 2 or not_at_inference(node) is not None:
        return None
    x, gamma, beta, mean, var = given
    affine = batch_norm_affine(gamma, beta, mean, var, float(attr(node, "epsilon", 1e-5)), precision=53)
    full = (-1,) + (1,) * (x.ndim - 2)
    return round_once(x.astype(np.float64) * affine.scale.reshape(full) + affine.shift.reshape(full), x.dtype)


def _static_shape(node: ir.Node) -> NDArray[Any] | None:
    """The result of a Shape whose sizes are all known."""
    x = node.inputs[0]
    if x is None or x.shape is None:
        return None
    start = node.attributes.get("start")
    end = node.attributes.get("end")
    dims = list(x.shape)[slice(start.value if start else 0, end.value if end else None)]
    if not all(isinstance(d, int) for d in dims):
        return None
    return np.array(dims, dtype=np.int64)
