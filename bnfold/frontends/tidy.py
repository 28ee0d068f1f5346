"""What exporters leave lying around, by well-kept passes: copies that do nothing, twice the same, padding on its own.

None of this is folding. It is done so that a raw export has no more operators in the end than an optimised one.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from bnfold.frontends.context import ONNX_DOMAINS, graphs_within
from bnfold.frontends.evaluate import IMPURE


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


def settle(model: ir.Model) -> None:
    """Clean up in place what the fold has brought together: padding before its Conv, and twins."""
    known = [node for node in model.graph if node.domain in ONNX_DOMAINS]
    pads = [node for node in known if node.op_type == "Pad"]
    if pads and all(map(_has_fixed_pads, pads)) and any(node.op_type == "Conv" for node in known):
        _pad_in_conv(model)
    _merge_twins(model)


def _has_fixed_pads(node: ir.Node) -> bool:
    """Whether a Pad takes its sizes as operands (since opset 11), none of which the caller can override."""
    return len(node.inputs) > 1 and not any(v is not None and v.is_graph_input() for v in node.inputs[1:])


def _pad_in_conv(model: ir.Model) -> None:
    """A Pad with zeros that only a Conv reads becomes the Conv's own padding."""
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import fuse_pad_into_conv_rule

    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)
    convs = {node.outputs[0].name: node for node in model.graph if node.op_type == "Conv"}
    try:
        rewrite(model, [fuse_pad_into_conv_rule])
    finally:
        log.setLevel(level)
    for node in model.graph:
        old = convs.get(node.outputs[0].name) if node.op_type == "Conv" else None
        if old is not None and old is not node:  # the rule leaves these behind
            node.doc_string = old.doc_string
            node.metadata_props.clear()
            node.metadata_props.update(old.metadata_props)


PLAIN = {ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT, ir.AttributeType.FLOATS}
PLAIN |= {ir.AttributeType.STRING, ir.AttributeType.STRINGS}


def _merge_twins(model: ir.Model) -> None:
    """Operators that compute the same from the same become one, in place.

    The library's pass also merges graph outputs, by copies that the next run would have to clean up, and BatchNorms,
    which the plan has counted; this one leaves both alone.
    """
    seen: dict[Hashable, ir.Node] = {}
    for node in list(model.graph):
        if (
            node.domain not in ONNX_DOMAINS
            or node.op_type in IMPURE
            or node.op_type == "BatchNormalization"
            or any(v.is_graph_output() for v in node.outputs)
        ):
            continue
        if any(a.type not in PLAIN for a in node.attributes.values()):
            continue
        settings = tuple(sorted((name, repr(a.value)) for name, a in node.attributes.items()))
        key = (node.op_identifier(), len(node.outputs), tuple(node.inputs), settings)
        twin = seen.setdefault(key, node)
        if twin is not node:
            ir.convenience.replace_all_uses_with(node.outputs, twin.outputs)
            model.graph.remove(node, safe=True)


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
