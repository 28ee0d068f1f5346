"""ONNX operators that pick elements by index: rows of a table, channels, or positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.frontends.context import Context, attr
from bnfold.reasons import Reason
from bnfold.units.graph import Op, Spatial, Table, Take


def read_gather(node: ir.Node, ctx: Context) -> list[Op]:
    """Gather: rows of a constant table, or some channels or positions of a feature."""
    data, indices = node.inputs
    assert data is not None
    rank = ctx.rank(data)
    assert rank is not None
    axis = int(attr(node, "axis", 0)) % rank
    table = ctx.const(data)
    if table is not None:
        out_rank = ctx.rank(node.outputs[0])
        alone = len(data.uses()) == 1 and not data.is_graph_output()
        if axis == rank - 1 or out_rank is None or not alone or not ctx.is_float(data):
            return ctx.rigid(node, Reason.SHARED_WEIGHT)
        return [Table(ctx.label(node), node.outputs[0], out_rank - 1, table.shape[-1], data)]
    index = ctx.const(indices)
    if index is not None:
        size = (ctx.shape(data) or ())[axis]
        index = np.asarray(index, dtype=np.int64)
        index = np.where(index < 0, index + size, index) if isinstance(size, int) else None
    return [Take(ctx.label(node), data, node.outputs[0], axis, index, keeps_axis=False)]


def read_gather_nd(node: ir.Node, ctx: Context) -> list[Op]:
    """GatherND: some positions of the first axes, which keep the channels behind them as they are."""
    x, indices = node.inputs
    assert x is not None
    assert indices is not None
    rank, shape = ctx.rank(x), ctx.shape(indices)
    if rank is None or not shape or not isinstance(shape[-1], int) or ctx.is_const(x):
        return ctx.rigid(node, Reason.BOUNDARY)
    batch = int(attr(node, "batch_dims", 0))
    behind = batch + shape[-1]
    source = (*range(batch), *[None] * (len(shape) - 1 - batch), *range(behind, rank))
    axes = tuple(range(batch, behind))
    return [Spatial(ctx.label(node), x, node.outputs[0], axes=axes, shape_axes=source)]
