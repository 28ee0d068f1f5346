"""What exporters leave lying around, by well-kept passes: copies that do nothing, twice the same, padding on its own.

None of this is folding. It is done so that a raw export has no more operators in the end than an optimised one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from bnfold.frontends.context import ONNX_DOMAINS, drop_unread, graphs_within, not_at_inference
from bnfold.frontends.evaluate import IMPURE

WEIGHTED = {"Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"}


def tidy(model: ir.Model) -> bool:
    """Clean a model up in place before it is read; names of inputs and outputs stay.

    Returns:
        Whether there was something to look at.
    """
    sequences = [
        (graph, node)
        for graph in graphs_within(model.graph)
        for node in graph
        if node.op_type == "SplitToSequence" and node.domain in ONNX_DOMAINS
    ]
    for graph, node in sequences:
        if (node.version or 13) >= 13:  # before, the sizes of a Split were an attribute
            _split_directly(graph, node)
    return bool(sequences)


class Settled(NamedTuple):
    """What there was to clean up.

    Attributes:
        changed: Whether there was anything.
        weighted: Whether twins with weights became one, whose result has one unit where theirs were tied.
        norms: BatchNorms that went, each with the one that does the same.
    """

    changed: bool
    weighted: bool
    norms: tuple[tuple[ir.Node, ir.Node], ...]


def settle(model: ir.Model, kept: Collection[ir.Node] = ()) -> Settled:
    """Clean up in place what the fold has brought together: padding before its Conv, and twins.

    Args:
        model: What was folded.
        kept: Nodes that stay, whatever they are twins of.
    """
    pads = [node for node in model.graph if node.op_type == "Pad" and node.domain in ONNX_DOMAINS]
    before = model.graph.num_nodes()
    moved = [_pad_in_convs(node) for node in pads]
    twins = _merge_twins(model, kept)
    weighted = any(node.op_type in WEIGHTED for node, _ in twins)
    norms = tuple(pair for pair in twins if pair[0].op_type == "BatchNormalization")
    return Settled(any(moved) or bool(twins) or model.graph.num_nodes() < before, weighted, norms)


def _pad_in_convs(pad: ir.Node) -> bool:
    """A Pad with zeros becomes the padding of the Convs that read it, and goes if nothing else does.

    Returns:
        Whether a Conv reads past it now.
    """
    x, y = pad.inputs[0], pad.outputs[0]
    zeros = _zeros_around(pad)
    moved = False
    if zeros is None or x is None:
        return moved
    for use in list(y.uses()):
        conv, own = use.node, use.node.attributes.get("pads")
        automatic = conv.attributes.get("auto_pad")
        if conv.op_type != "Conv" or conv.domain not in ONNX_DOMAINS or use.idx != 0:
            continue
        if automatic is not None and automatic.value not in ("NOTSET", "VALID"):
            continue
        before = [0] * len(zeros) if own is None else own.as_ints()
        conv.attributes.pop("auto_pad", None)
        conv.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(before, zeros, strict=True)])
        conv.replace_input_with(0, x)
        moved = True
    if not y.uses() and not y.is_graph_output() and pad.graph is not None:
        operands = [value for value in pad.inputs[1:] if value is not None]
        pad.graph.remove(pad, safe=True)
        drop_unread(operands)
    return moved


def _zeros_around(pad: ir.Node) -> list[int] | None:
    """How many zeros a Pad puts before and after each axis but the first two; None where it does anything else."""
    mode, x = pad.attributes.get("mode"), pad.inputs[0]
    if len(pad.inputs) < 2 or (mode is not None and mode.value != "constant") or x is None or x.shape is None:
        return None  # before opset 11, sizes were attributes
    if any(v is not None and (v.const_value is None or v.is_graph_input()) for v in pad.inputs[1:]):
        return None
    sizes, fill, axes = (
        None if v is None or v.const_value is None else v.const_value.numpy().reshape(-1)
        for v in [*pad.inputs[1:4], None, None][:3]
    )
    rank = x.shape.rank()
    if sizes is None or (fill is not None and fill.any()):
        return None
    places = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    zeros = [0] * (2 * rank)
    for i, axis in enumerate(places):
        zeros[axis], zeros[axis + rank] = int(sizes[i]), int(sizes[i + len(places)])
    if min(zeros) < 0 or any(zeros[:2]) or any(zeros[rank : rank + 2]):
        return None
    return zeros[2:rank] + zeros[rank + 2 :]


PLAIN = {ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT, ir.AttributeType.FLOATS}
PLAIN |= {ir.AttributeType.STRING, ir.AttributeType.STRINGS}


def _merge_twins(model: ir.Model, kept: Collection[ir.Node]) -> list[tuple[ir.Node, ir.Node]]:
    """Operators that compute the same from the same become one, in place.

    The library's pass also merges graph outputs, by copies that the next run would have to clean up, and does not say
    which BatchNorms, which the plan has counted; this one leaves the first alone and says the second.

    Returns:
        Those that went, each with the one that stays.
    """
    gone: list[tuple[ir.Node, ir.Node]] = []
    seen: dict[tuple[object, ...], list[ir.Node]] = {}
    for node in list(model.graph):
        if node.domain not in ONNX_DOMAINS or node.op_type in IMPURE:
            continue
        if node.op_type == "BatchNormalization" and not_at_inference(node) is not None:
            continue
        if node in kept or any(v.is_graph_output() for v in node.outputs):
            continue
        alike = seen.setdefault((node.op_type, len(node.outputs), *node.inputs), [])
        twin = next((other for other in alike if _settings(other) == _settings(node)), None)
        if twin is None:
            alike.append(node)
            continue
        ir.convenience.replace_all_uses_with(node.outputs, twin.outputs)
        model.graph.remove(node, safe=True)
        gone.append((node, twin))
    return gone


def _settings(node: ir.Node) -> object:
    """A node's attributes, comparable; what holds graphs or tensors is like nothing else."""
    if any(a.type not in PLAIN for a in node.attributes.values()):
        return object()
    return sorted((name, repr(a.value)) for name, a in node.attributes.items())


def _split_directly(graph: ir.Graph, node: ir.Node) -> None:
    """SplitToSequence whose parts are taken out one by one at constant places is a Split."""
    x, sizes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    readers = [use.node for use in node.outputs[0].uses()]
    axis_attribute = node.attributes.get("axis")
    axis = int(axis_attribute.value) if axis_attribute is not None else 0
    if x is None or x.shape is None or sizes is None or not sizes.is_initializer() or sizes.const_value is None:
        return
    if node.outputs[0].is_graph_output() or any(r.op_type != "SequenceAt" or r.graph is not graph for r in readers):
        return
    total = x.shape[axis]
    places = [r.inputs[1].const_value if r.inputs[1] is not None else None for r in readers]
    if not isinstance(total, int) or any(p is None for p in places):
        return
    wanted = np.asarray(sizes.const_value.numpy())
    if wanted.ndim == 0:
        step = int(wanted)
        lengths = [min(step, total - at) for at in range(0, total, step)] if step > 0 else []
    else:
        lengths = [int(v) for v in wanted]
    if sum(lengths) != total or not lengths:
        return
    part_sizes = ir.Value(
        name=f"{node.outputs[0].name}_sizes",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([len(lengths)]),
        const_value=ir.Tensor(np.array(lengths, dtype=np.int64), name=f"{node.outputs[0].name}_sizes"),
    )
    graph.register_initializer(part_sizes)
    split = ir.Node(
        "", "Split", [x, part_sizes], {"axis": ir.AttrInt64("axis", axis)}, num_outputs=len(lengths), name=node.name
    )
    graph.insert_before(node, split)
    for i, (output, length) in enumerate(zip(split.outputs, lengths, strict=True)):
        output.name = f"{node.outputs[0].name}_{i}"
        output.type = ir.TensorType(x.dtype) if x.dtype is not None else None
        dims = list(x.shape)
        dims[axis] = length
        output.shape = ir.Shape(dims)
    for reader, place in zip(readers, places, strict=True):
        assert place is not None
        if reader.outputs[0].is_graph_output():
            return
        reader.outputs[0].replace_all_uses_with(split.outputs[int(place.numpy().item())])
        graph.remove(reader, safe=True)
    graph.remove(node, safe=True)
