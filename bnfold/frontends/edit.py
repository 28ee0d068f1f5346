"""What every change to an ONNX graph needs: names that are free, new constants, results that take over a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.units.affine import round_once

Store = Callable[[NDArray[Any]], NDArray[Any]]


def in_memory(array: NDArray[Any]) -> NDArray[Any]:
    """A new weight kept where it is; where there are too many for that, a `Store` keeps them elsewhere."""
    return array


class Editor:
    """One graph being changed in place.

    Attributes:
        graph: The graph.
        store: Keeps new weights.
        orphans: Values that may have lost their last reader.
    """

    def __init__(self, graph: ir.Graph, names: set[str], store: Store = in_memory) -> None:
        self.graph = graph
        self.store = store
        self.orphans: list[ir.Value] = []
        self._names = names

    def fresh(self, wanted: str) -> str:
        """A name that nothing in the graph has."""
        name, n = wanted, 2
        while name in self._names:
            name, n = f"{wanted}_{n}", n + 1
        self._names.add(name)
        return name

    def constant(self, array: NDArray[Any], dtype: ir.DataType | None, wanted: str) -> ir.Value:
        """A new initializer, rounded once."""
        assert dtype is not None
        name, stored = self.fresh(wanted), dtype.numpy()
        rounded = array if array.dtype == stored else round_once(np.asarray(array, dtype=np.float64), stored)
        rounded = np.asarray(rounded, order="C")
        tensor = ir.Tensor(self.store(rounded), dtype=dtype, name=name)
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(rounded.shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def set_input(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Give a node another operand; what it read before may have become useless."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        before = node.inputs[index]
        node.replace_input_with(index, value)
        if before is not None:
            self.orphans.append(before)

    def become(self, new: ir.Value, old: ir.Value) -> None:
        """A value takes the name and everything declared of another, which gets a name of no meaning."""
        new.type, new.shape, new.doc_string = old.type, old.shape, old.doc_string
        new.metadata_props.update(old.metadata_props)
        old.name, new.name = self.fresh(f"{old.name}_inner"), old.name
