"""What an operator that is not linear demands of the units of its operands, and which unit its result has then.

One function per kind of operator (`single`, `places`, `several`, `weighted`), written down from what the operator
computes: `f(S ⊙ v + T) = S' ⊙ f(v) + T'`. A law that does not hold raises `Mismatch` with the words a user reads.
Operators that are not in this table must read the same values before and after.
"""

from __future__ import annotations

import onnx_ir as ir

from bnfold.certificate import moves
from bnfold.certificate.pair import Law, rigid
from bnfold.certificate.places import concat, expand, gather, move, reshape, slices, split, tile
from bnfold.certificate.several import gate, mix, select
from bnfold.certificate.single import (
    average,
    clip,
    counts_zeros,
    cumulative,
    homogeneous,
    mean,
    never,
    outside_is_zero,
    pad,
    reduce,
    resize,
    roi,
    shape_only,
    space,
)
from bnfold.certificate.weighted import norm, recurrent

LAWS: dict[str, Law] = {
    "Abs": homogeneous,
    "AveragePool": average(space, zeros=counts_zeros),
    "Clip": clip,
    "Concat": concat,
    "CumSum": cumulative,
    "DepthToSpace": move(lambda pair: moves.pixels(pair.before)),
    "Div": gate,
    "Expand": move(expand),
    "Flatten": move(reshape),
    "GRU": recurrent,
    "Gather": gather,
    "GlobalAveragePool": mean,
    "GlobalMaxPool": average(space, positive=True, zeros=never),
    "GridSample": average(space, zeros=outside_is_zero),
    "GroupNormalization": norm,
    "InstanceNormalization": norm,
    "LSTM": recurrent,
    "LayerNormalization": norm,
    "LeakyRelu": homogeneous,
    "MatMul": mix,
    "Max": select,
    "MaxPool": average(space, positive=True, zeros=never),
    "MaxRoiPool": roi,
    "Min": select,
    "Mul": gate,
    "PRelu": homogeneous,
    "Pad": pad,
    "RMSNormalization": norm,
    "RNN": recurrent,
    "ReduceMax": reduce,
    "ReduceMean": reduce,
    "ReduceMin": reduce,
    "ReduceSum": reduce,
    "Relu": homogeneous,
    "Reshape": move(reshape),
    "Resize": resize,
    "RoiAlign": roi,
    "Shape": shape_only,
    "Size": shape_only,
    "Slice": move(slices),
    "SpaceToDepth": move(lambda pair: moves.pixels(pair.before)),
    "Split": split,
    "Squeeze": move(reshape),
    "Tile": move(tile),
    "Transpose": move(lambda pair: moves.transpose(pair.before)),
    "Unsqueeze": move(reshape),
    "Upsample": resize,
    "Where": select,
}
ANY = tuple(range(1 << 10))  # of an operator with any number of operands
OWN_CONSTANTS: dict[str, tuple[int, ...]] = {  # operands that a law compares itself, as they may be in other units
    "Concat": ANY,
    "GRU": (1, 3),
    "Gather": (0,),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 3),
    "LayerNormalization": (1, 2),
    "Max": ANY,
    "Min": ANY,
    "RMSNormalization": (1, 2),
    "RNN": (1, 3),
    "Where": (1, 2),
}


def law_of(node: ir.Node) -> Law:
    """The law of an operator; rigid where it has none of its own."""
    return LAWS.get(node.op_type, rigid)
