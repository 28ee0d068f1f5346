"""LSTM, GRU and RNN in all directions, with peepholes, clipping and sequences of different lengths.

https://onnx.ai/onnx/operators/onnx__LSTM.html and the pages of the other two; the notation is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnfold.float64.call import Call, Elsewhere, Operator

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]

DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
PLAIN: dict[str, Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": F.softsign,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
}


@dataclass(frozen=True)
class _Cell:
    """One direction.

    Attributes:
        kind: The operator.
        w: `[gates·hidden, input]`.
        r: `[gates·hidden, hidden]`.
        b: `[2, gates·hidden]`, of the input and of the state.
        p: `[3, hidden]` peepholes of an LSTM.
        functions: Its activations.
        clip: Bound of what goes into them.
        reset_after: GRU's `linear_before_reset`.
    """

    kind: str
    w: Tensor
    r: Tensor
    b: Tensor
    p: Tensor
    functions: list[Activation]
    clip: float | None
    reset_after: bool

    def step(self, x: Tensor, state: State) -> State:
        """The state after one more element `[batch, input]`."""
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind](x @ self.w.T + self.b[0], state)

    def _bounded(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def _rnn(self, x: Tensor, state: State) -> State:
        return (self.functions[0](self._bounded(x + state[0] @ self.r.T + self.b[1])),)

    def _gru(self, x: Tensor, state: State) -> State:
        f, g = self.functions
        [h] = state
        hidden = h.shape[-1]
        xz, xr, xh = torch.split(x, hidden, -1)
        rz, rr, rh = torch.split(self.r, hidden, 0)
        bz, br, bh = torch.split(self.b[1], hidden, -1)
        z = f(self._bounded(xz + h @ rz.T + bz))
        r = f(self._bounded(xr + h @ rr.T + br))
        inner = r * (h @ rh.T + bh) if self.reset_after else (r * h) @ rh.T + bh
        return ((1 - z) * g(self._bounded(xh + inner)) + z * h,)

    def _lstm(self, x: Tensor, state: State) -> State:
        f, g, h_of = self.functions
        h, c = state
        i, o, forget, candidate = torch.split(x + h @ self.r.T + self.b[1], h.shape[-1], -1)
        keep = f(self._bounded(forget + self.p[2] * c))
        new = keep * c + f(self._bounded(i + self.p[0] * c)) * g(self._bounded(candidate))
        return f(self._bounded(o + self.p[1] * new)) * h_of(new), new


def recurrent(
    call: Call,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """LSTM, GRU or RNN: all hidden states, the last one, and the last cell of an LSTM."""
    if call.get("input_forget", 0) or call.get("activation_alpha") or call.get("activation_beta"):
        raise Elsewhere
    batch_first = bool(call.get("layout", 0))
    x = x.transpose(0, 1) if batch_first else x
    directions, rows, hidden = r.shape
    batch = x.shape[1]
    names = call.get("activations") or DEFAULTS[call.op] * directions
    count = len(DEFAULTS[call.op])
    b = torch.zeros(directions, 2 * rows, dtype=x.dtype) if b is None else b
    p = torch.zeros(directions, 3 * hidden, dtype=x.dtype) if p is None else p
    outputs, last = [], []
    for d in range(directions):
        functions = [_activation(name) for name in names[d * count : (d + 1) * count]]
        after = bool(call.get("linear_before_reset", 0))
        two, three = b[d].reshape(2, rows), p[d].reshape(3, hidden)
        cell = _Cell(call.op, w[d], r[d], two, three, functions, call.get("clip"), after)
        zero = torch.zeros(batch, hidden, dtype=x.dtype)
        given = (initial_h, initial_c) if call.op == "LSTM" else (initial_h,)
        start = [zero if v is None else (v.transpose(0, 1) if batch_first else v)[d] for v in given]
        backwards = call.get("direction", "forward") == "reverse" or d == 1
        states, final = _run(cell, x, tuple(start), lengths, backwards=backwards)
        outputs.append(states)
        last.append(final)
    y = torch.stack(outputs, 1)  # [length, directions, batch, hidden]
    ends = [torch.stack(parts) for parts in zip(*last, strict=True)]
    if batch_first:
        y, ends = y.permute(2, 0, 1, 3), [end.transpose(0, 1) for end in ends]
    return (y, *ends)[: max(call.outputs, 1)]


def _run(cell: _Cell, x: Tensor, state: State, lengths: Tensor | None, *, backwards: bool) -> tuple[Tensor, State]:
    """Every hidden state and the last one; a sequence that has ended keeps its state and gives zeros."""
    hidden: dict[int, Tensor] = {}
    for t in _order(len(x), backwards):
        new = cell.step(x[t], state)
        alive = torch.ones(x.shape[1], 1, dtype=torch.bool) if lengths is None else (lengths > t).reshape(-1, 1)
        state = tuple(torch.where(alive, n, o) for n, o in zip(new, state, strict=True))
        hidden[t] = torch.where(alive, new[0], torch.zeros_like(new[0]))
    if not hidden:
        raise Elsewhere
    return torch.stack([hidden[t] for t in range(len(x))]), state


def _order(length: int, backwards: bool) -> Iterator[int]:
    return iter(range(length - 1, -1, -1) if backwards else range(length))


def _activation(name: Any) -> Activation:
    function = PLAIN.get(str(name).lower())
    if function is None:
        raise Elsewhere
    return function


RECURRENT: dict[str, Operator] = dict.fromkeys(DEFAULTS, recurrent)
