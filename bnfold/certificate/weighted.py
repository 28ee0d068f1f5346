"""Laws of operators with parameters of their own: normalisations and recurrent layers."""

from __future__ import annotations

import numpy as np

from bnfold.certificate.bounds import Bound
from bnfold.certificate.forms import Mismatch, Unit, plain, spread, vector
from bnfold.certificate.pair import Pair, Units, only, rigid
from bnfold.certificate.sides import rank_of


def norm(pair: Pair, units: Units) -> list[Unit]:
    """LayerNormalization and its kin: the same normalisation, whose scale and bias may have gone elsewhere."""
    pair.same(units[0])
    node, y = pair.before, pair.before.outputs[0]
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        raise Mismatch("its statistics are read as well")
    rank = rank_of(y)
    axis = rank - 1 if node.op_type in ("LayerNormalization", "RMSNormalization") else 1
    one = Bound.filled(1.0, 1)
    zero = Bound.filled(0.0, 1)
    parts: list[Bound] = []
    for index, default in ((1, one), (2, zero)):
        for side, which in ((pair.old, node), (pair.new, pair.after)):
            value = which.inputs[index] if len(which.inputs) > index else None
            bound = default if value is None else side.bound(value)
            if bound is None:
                return rigid(pair, units)
            parts.append(_per_channel(bound, axis, rank))
    gamma, new_gamma, beta, new_beta = parts
    plainly = (gamma.mid == new_gamma.mid).all() and (beta.mid == new_beta.mid).all()
    if gamma.mid.shape == new_gamma.mid.shape and beta.mid.shape == new_beta.mid.shape and plainly:
        return pair.plain()
    nothing = (gamma.mid == 0) & (new_gamma.mid == 0)
    scale = (gamma * new_gamma.inverse()).where(nothing, Bound.filled(0.0, rank))
    if not np.isfinite(scale.err).all():
        raise Mismatch("its scale after is 0 where it was not", differs=True)
    return [pair.result(scale, beta - new_beta * scale)] + [plain(v, 0) for v in pair.after.outputs[1:]]


def _per_channel(bound: Bound, axis: int, rank: int) -> Bound:
    if bound.rank > 1:  # LayerNormalization over several axes: aligned at the end
        return bound.moved(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape))
    return spread(bound, axis, rank)


def recurrent(pair: Pair, units: Units) -> list[Unit]:
    """LSTM, GRU, RNN: the input's unit is in the input weights and their bias, everything else as it was."""
    for other in units[1:]:
        pair.same(other)
    unit = pair.even(only(units), (0, 1))
    old, new = pair.old.bound(pair.before.inputs[1]), pair.new.bound(pair.after.inputs[1])
    if old is None or new is None:
        return rigid(pair, units)
    scale, shift = vector(unit.scale, 2), vector(unit.shift, 2)
    if not (old * Bound(scale.mid, scale.err) - new).holds(0.0).all():
        raise Mismatch("its input weights are not those of the new unit", differs=True)
    rows = old.mid.shape[1]
    wide = [np.broadcast_to(a, (old.mid.shape[2],)) for a in (shift.mid, shift.err)]
    response = Bound(old.mid @ wide[0], np.abs(old.mid) @ wide[1] + 1e-14 * (np.abs(old.mid) @ np.abs(wide[0])))
    biases = []
    for side, node in ((pair.old, pair.before), (pair.new, pair.after)):
        value = node.inputs[3] if len(node.inputs) > 3 else None
        bias = Bound.exact(np.zeros((len(old.mid), 2 * rows))) if value is None else side.bound(value)
        if bias is None:
            return rigid(pair, units)
        biases.append(bias)
    first, second = (b.moved(lambda a: a[:, :rows]) for b in biases)
    rest = [b.moved(lambda a: a[:, rows:]) for b in biases]
    if not (first + response - second).holds(0.0).all() or not (rest[0] - rest[1]).holds(0.0).all():
        raise Mismatch("its bias is not that of the new unit", differs=True)
    return pair.plain()
