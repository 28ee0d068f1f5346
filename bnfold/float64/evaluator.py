"""Runs an ONNX model in float64: what it means before anything is rounded.

Every tensor of floats is held as float64, whatever the model says: weights are widened exactly, and a Cast to a
narrower float does nothing. Integers and booleans are as they are. Operators run in PyTorch, or else in
`onnx.reference`. A value is freed after its last reader; weights are widened once, or, where they are too many to be
held at twice their size, each time that they are read.

Reason: onnxruntime has no float64 convolution on CPUs, and `onnx.reference` needs minutes for what takes seconds here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnfold.errors import UnsupportedError, UsageError
from bnfold.float64.call import Call, Operator, widened
from bnfold.float64.constants import CONSTANTS
from bnfold.float64.elementwise import ELEMENTWISE
from bnfold.float64.normalise import NORMALISE
from bnfold.float64.recurrent import RECURRENT
from bnfold.float64.reference import by_reference
from bnfold.float64.resize import RESIZE
from bnfold.float64.sequences import SEQUENCES
from bnfold.float64.structure import STRUCTURE
from bnfold.float64.window import WINDOW
from bnfold.frontends.inline import inlined
from bnfold.running.runners import as_ir
from bnfold.writing.spill import LARGE_BYTES, SMALL_BYTES

Watch = Callable[[ir.Node, tuple[Any, ...]], None]
Values = dict[ir.Value, Any]

OPERATORS: dict[str, Operator] = {
    **CONSTANTS, **ELEMENTWISE, **NORMALISE, **RECURRENT, **RESIZE, **SEQUENCES, **STRUCTURE, **WINDOW,
}  # fmt: skip
STANDARD = ("", "ai.onnx")
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
LOST = {
    dtype for dtype in ir.DataType if dtype.name.startswith(("FLOAT4", "FLOAT8", "INT4", "UINT4", "INT2", "UINT2"))
}  # fmt: skip


class Evaluator:
    """An ONNX model, ready to run in float64.

    Args:
        model: An `onnx_ir.Model`, `ModelProto` or path; it is not changed.
        label: What messages call it.

    Attributes:
        graph: Its main graph with functions inlined.
        notes: What was not run as written, in words.
    """

    def __init__(self, model: object, label: str = "the model") -> None:
        opened = as_ir(model)
        if opened.functions:
            opened = inlined(opened.clone())
        self.graph: ir.Graph = opened.graph
        self._label = label
        self._opsets = dict(opened.opset_imports)
        stored = [
            (value, value.const_value)
            for graph in opened.graphs()
            for value in graph.initializers.values()
            if value.const_value is not None
        ]
        longest = SMALL_BYTES if sum(tensor.nbytes for _, tensor in stored) >= LARGE_BYTES else sys.maxsize
        self._held: Values = {value: widened(tensor.numpy()) for value, tensor in stored if tensor.nbytes <= longest}
        self._dying = {graph: _last_uses(graph) for graph in opened.graphs()}
        narrow = sum(_narrows(node) for graph in opened.graphs() for node in graph)
        casts = f"{narrow} Casts to a narrower float were" if narrow > 1 else "1 Cast to a narrower float was"
        self.notes = (f"{casts} not rounded in float64",) if narrow else ()

    def run(self, feeds: Mapping[str, NDArray[Any]], watch: Watch | None = None) -> dict[str, NDArray[Any]]:
        """The outputs by name, in the model's order.

        Args:
            feeds: The inputs by name; floats of any width. An initializer that is fed is overridden.
            watch: Called after each node of the main graph with the node and its results.

        Raises:
            UsageError: An input is missing.
            UnsupportedError: An operator has no meaning here, or does not take its operands.
        """
        values = dict(self._held)
        for value in self.graph.inputs:
            if value.name in feeds:
                values[value] = _fed(feeds[value.name or ""])
            elif value not in values and value.const_value is None:
                raise UsageError(f"input {value.name!r} of {self._label} is missing", "Pass it by its name.")
        for name in feeds:
            if name in self.graph.initializers:
                values[self.graph.initializers[name]] = _fed(feeds[name])
        with torch.no_grad():
            results = self._graph(self.graph, values, watch)
        named: dict[str, NDArray[Any]] = {}
        for value, result in zip(self.graph.outputs, results, strict=True):
            many = isinstance(result, list)
            items = {f"{value.name}[{i}]": item for i, item in enumerate(result)} if many else {value.name: result}
            named |= {str(key): np.asarray(item) for key, item in items.items()}
        return named

    def apply(self, node: ir.Node, operands: list[Any]) -> tuple[Any, ...]:
        """What one operator makes of its operands.

        Args:
            node: One without bodies.
            operands: What it reads; floats as float64.

        Raises:
            UnsupportedError: It has no meaning here, or does not take these operands.
        """
        opset = self.opset(node)
        if node.op_type in RANDOM:
            raise UnsupportedError(
                f"{_named(node)} of {self._label} draws random numbers, so that no two runs agree",
                "Replace it by an input of the model.",
            )
        if node.op_type in ("CastLike", "QuantizeLinear") and any(
            v is not None and v.dtype in LOST for v in node.inputs
        ):
            raise UnsupportedError(
                f"{_named(node)} of {self._label} rounds to numbers of less than a byte or to float8",
                "Verify the model before it is quantised.",
            )
        if node.domain in STANDARD and node.op_type in OPERATORS:
            attrs = {a.name: a.value for a in node.attributes.values() if a.type is not ir.AttributeType.GRAPH}
            call = Call(node.op_type, attrs, opset, len(node.outputs))
            # Whatever torch does not take is left to the reference, which refuses what is really wrong.
            with suppress(Exception):
                result = OPERATORS[node.op_type](call, *operands)
                return tuple(_wide(item) for item in (result if isinstance(result, tuple) else (result,)))
        try:
            return by_reference(node, operands, opset)
        except Exception as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise UnsupportedError(
                f"{_named(node)} of {self._label} does not run in float64: {said}",
                "Check the model with another runtime, or verify with --verify quick.",
            ) from error

    def constant(self, value: ir.Value) -> Any:
        """What an initializer holds."""
        if value in self._held or value.const_value is None:
            return self._held[value]
        return widened(value.const_value.numpy())

    def opset(self, node: ir.Node) -> int:
        """The version of the operators that a node belongs to."""
        return node.version or self._opsets.get(node.domain, 1)

    def _graph(self, graph: ir.Graph, values: Values, watch: Watch | None = None) -> list[Any]:
        dying = self._dying[graph]
        for node in graph:
            operands = [None if value is None else self._value(value, values) for value in node.inputs]
            body = CONTROL.get(node.op_type) if node.domain in STANDARD else None
            results = self.apply(node, operands) if body is None else body(self, node, operands, values)
            for value, result in zip(node.outputs, results, strict=False):
                values[value] = result
            if watch is not None:
                watch(node, results)
            del operands, results  # they may be the last to hold what is freed now
            for value in dying[node]:
                values.pop(value, None)
        return [self._value(value, values) for value in graph.outputs]

    def _value(self, value: ir.Value, values: Values) -> Any:
        return values[value] if value in values else self.constant(value)

    def body(self, node: ir.Node, name: str, operands: list[Any], values: Values) -> list[Any]:
        """Runs a graph that an operator holds."""
        graph = node.attributes[name].as_graph()
        values.update(zip(graph.inputs, operands, strict=True))
        return self._graph(graph, values)


def _if(run: Evaluator, node: ir.Node, operands: list[Any], values: Values) -> tuple[Any, ...]:
    return tuple(run.body(node, "then_branch" if bool(operands[0]) else "else_branch", [], values))


def _loop(run: Evaluator, node: ir.Node, operands: list[Any], values: Values) -> tuple[Any, ...]:
    limit, going, *carried = operands
    count = len(carried)
    scanned: list[list[Any]] = [[] for _ in range(len(node.outputs) - count)]
    going = torch.tensor(True) if going is None else going
    step = 0
    while bool(going) and (limit is None or step < int(limit)):
        going, *found = run.body(node, "body", [torch.tensor(step), going, *carried], values)
        carried = found[:count]
        for rows, row in zip(scanned, found[count:], strict=True):
            rows.append(row)
        step += 1
    return (*carried, *(torch.stack(rows) if rows else torch.zeros(0, dtype=torch.float64) for rows in scanned))


def _scan(run: Evaluator, node: ir.Node, operands: list[Any], values: Values) -> tuple[Any, ...]:
    def given(name: str, count: int) -> list[int]:
        return list(node.attributes[name].value) if name in node.attributes else [0] * count

    if run.opset(node) < 9:
        raise UnsupportedError(
            f"{_named(node)} is a Scan of opset 8, which has a batch", "Convert the model to a newer opset."
        )
    sources = int(node.attributes["num_scan_inputs"].value)
    count = len(operands) - sources
    state, inputs = operands[:count], operands[count:]
    axes, backwards = given("scan_input_axes", sources), given("scan_input_directions", sources)
    rows = [list(x.unbind(axis))[:: -1 if back else 1] for x, axis, back in zip(inputs, axes, backwards, strict=True)]
    scanned: list[list[Any]] = [[] for _ in range(len(node.outputs) - count)]
    for elements in zip(*rows, strict=True):
        found = run.body(node, "body", [*state, *elements], values)
        state = found[:count]
        for made, row in zip(scanned, found[count:], strict=True):
            made.append(row)
    axes, backwards = given("scan_output_axes", len(scanned)), given("scan_output_directions", len(scanned))
    ends = zip(scanned, axes, backwards, strict=True)
    return (*state, *(torch.stack(made[:: -1 if back else 1], axis) for made, axis, back in ends))


CONTROL: dict[str, Callable[[Evaluator, ir.Node, list[Any], Values], tuple[Any, ...]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}


def _last_uses(graph: ir.Graph) -> dict[ir.Node, list[ir.Value]]:
    """By node, which values of the graph nothing reads after it."""
    kept = {*graph.outputs, *graph.initializers.values()}
    last: dict[ir.Value, ir.Node] = {}
    for node in graph:
        last |= dict.fromkeys(_read(node), node)
        last |= dict.fromkeys(node.outputs, node)
    dying: dict[ir.Node, list[ir.Value]] = {node: [] for node in graph}
    for value, node in last.items():
        if value not in kept and (value in graph.inputs or value.graph is graph):
            dying[node].append(value)
    return dying


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, those in its bodies included."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            graph = attribute.as_graph()
            yield from graph.outputs
            for inner in graph:
                yield from _read(inner)


def _fed(value: Any) -> Any:
    if value is None:  # an optional that is not there
        return None
    return [_fed(item) for item in value] if isinstance(value, list) else widened(np.asarray(value))


def _wide(value: Any) -> Any:
    narrow = isinstance(value, Tensor) and value.dtype.is_floating_point and value.dtype is not torch.float64
    return value.double() if narrow else value


def _narrows(node: ir.Node) -> bool:
    if node.op_type != "Cast" or node.domain not in STANDARD:
        return False
    to = ir.DataType(node.attributes["to"].value)
    source = None if node.inputs[0] is None else node.inputs[0].dtype
    if not to.is_floating_point() or (source is not None and not source.is_floating_point()):
        return False
    return to.bitwidth < (32 if source is None else source.bitwidth)


def _named(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or (node.outputs[0].name if node.outputs else '')!r}"
