"""What exporters leave lying around, by well-kept passes: copies that do nothing, twice the same, padding on its own.

None of this is folding. It is done so that a raw export has no more operators in the end than an optimised one.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, IdentityEliminationPass

from bnfold.frontends.context import ONNX_DOMAINS


def tidy(model: ir.Model) -> None:
    """Clean a model up in place; names of inputs and outputs stay."""
    present = {node.op_type for node in model.graph.all_nodes() if node.domain in ONNX_DOMAINS}
    if "SplitToSequence" in present:
        for graph in [model.graph, *model.graph.subgraphs()]:
            for node in list(graph):
                if node.op_type == "SplitToSequence" and node.domain in ONNX_DOMAINS:
                    _split_directly(graph, node)
    if "Identity" in present:
        IdentityEliminationPass()(model)
    if "Pad" in present and "Conv" in present:
        _pad_in_conv(model)


def _pad_in_conv(model: ir.Model) -> None:
    """A Pad with zeros that only a Conv reads becomes the Conv's own padding."""
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import fuse_pad_into_conv_rule

    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        rewrite(model, [fuse_pad_into_conv_rule])
    finally:
        log.setLevel(level)


def merge_twins(model: ir.Model) -> None:
    """Operators that compute the same from the same become one."""
    CommonSubexpressionEliminationPass()(model)


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
