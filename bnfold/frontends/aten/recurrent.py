"""LSTM, GRU and RNN: what enters the first layer meets constant weights; what leaves is rigid."""

from __future__ import annotations

from torch import fx

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.nodes import arguments, results
from bnfold.reasons import Reason
from bnfold.units.graph import Op, Recurrent, Rigid

RECURRENT = ("gru", "lstm", "rnn_relu", "rnn_tanh")


def read_recurrent(node: fx.Node, ctx: Context) -> list[Op]:
    """LSTM, GRU, RNN on a plain tensor: the input weights of the first layer are `[gates·hidden, input]`."""
    named = arguments(node)
    x, params = named.get("input"), named.get("params")
    if not isinstance(params, list | tuple) or not ctx.feature(x) or not all(ctx.is_const(p) for p in params):
        return ctx.rigid(node, Reason.NOT_CONSTANT)
    assert isinstance(x, fx.Node)
    if named.get("train") and float(named["dropout"]) > 0 and int(named["num_layers"]) > 1:
        return ctx.rigid(node, Reason.TRAINING)
    if not named["has_biases"] or "batch_first" not in named or node.name in ctx.held:
        return ctx.rigid(node, Reason.NONLINEAR)
    weights = [params[at] for at, _ in input_weights(node)]
    states = tuple(n for n in node.all_input_nodes if n is not x and ctx.feature(n))
    held: list[Op] = [Rigid(f"{ctx.label(node)}#states", states, (), Reason.NONLINEAR)] if states else []
    frozen = any(len(ctx.readers(p)) > 1 or ctx.entangled(p) for p in params)
    array = ctx.const(weights[0])
    assert array is not None
    return [
        *held,
        Recurrent(
            ctx.label(node),
            x,
            ctx.rank(x) - 1,
            results(node),
            ctx.identity(weights[0]),
            features=array.shape[1],
            frozen=Reason.SHARED_WEIGHT if frozen else None,
        ),
    ]


def input_weights(node: fx.Node) -> list[tuple[int, int]]:
    """Places of the first layer's input weight and input bias among the parameters, once per direction."""
    named = arguments(node)
    directions = 2 if named["bidirectional"] else 1
    each = len(named["params"]) // (int(named["num_layers"]) * directions)
    return [(d * each, d * each + 2) for d in range(directions)]
