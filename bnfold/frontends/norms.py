"""BatchNormalization nodes as affines: the parameters of all nodes of a graph are worked out in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.frontends.context import PRECISION, Context, Norm, attr
from bnfold.units.affine import batch_norm_affine


def constant_norms(nodes: Sequence[ir.Node], ctx: Context) -> dict[ir.Node, Norm]:
    """Those among some BatchNormalizations whose four parameters are constants of one size."""
    able: list[ir.Node] = []
    parameters: list[list[NDArray[Any]]] = []
    for node in nodes:
        given = [array.reshape(-1) for array in ctx.constants(node.inputs[1:5]) if array is not None]
        if len(given) == 4 and len({array.size for array in given}) == 1 and given[0].size:
            able.append(node)
            parameters.append(given)
    if not able:
        return {}
    sizes = [given[0].size for given in parameters]
    gamma, beta, mean, var = (
        np.concatenate(each, dtype=np.float64, casting="unsafe") for each in zip(*parameters, strict=True)
    )
    eps = np.repeat([float(attr(node, "epsilon", 1e-5)) for node in able], sizes)
    bits = np.repeat([PRECISION.get(node.outputs[0].dtype or ir.DataType.FLOAT, 24) for node in able], sizes)
    affine = batch_norm_affine(gamma, beta, mean, var, eps, bits)
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(var + eps)
    stops: NDArray[np.int64] = np.cumsum(sizes)
    starts = stops - sizes
    finite = np.isfinite([affine.scale, affine.shift, mean, var]).all(axis=0)
    all_finite = np.logical_and.reduceat(finite, starts)
    return {
        node: Norm(affine.scale[start:stop], affine.shift[start:stop], spread[start:stop], bool(is_finite))
        for node, start, stop, is_finite in zip(able, starts.tolist(), stops.tolist(), all_finite, strict=True)
    }
