"""Carrying out edits on an exported program: new weights, no BatchNorms, everything else untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from bnfold.frontends.aten.context import Context
from bnfold.frontends.aten.editor import Editor, value_of
from bnfold.frontends.aten.edits import Edits, renewable
from bnfold.frontends.aten.nodes import Place, argument, argument_name, fake, set_argument

ADD, MUL = torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor


def rewrite_program(editor: Editor, edits: Edits, context: Context) -> None:
    """Apply edits to a program.

    Args:
        editor: The program; changed.
        edits: What to change.
        context: What the readers knew of it.
    """
    _Rewriter(editor, edits, context).run()


class _Rewriter:
    """One program being rewritten."""

    def __init__(self, editor: Editor, edits: Edits, context: Context) -> None:
        self.editor, self.edits, self.context = editor, edits, context
        self._orphans: list[fx.Node] = []

    def run(self) -> None:
        """Rewrite what changes, then take out what vanished."""
        self._renew_constants()
        for node, (scale, shift) in self.edits.replaced.items():
            self._replace(node, scale, shift)
        for node, (weight, bias) in self.edits.depthwise.items():
            self._replace_by_convolution(node, weight, bias)
        for node, array in self.edits.added.items():
            made = self.editor.insert(node, ADD, (node, self._parameter(array, node, "bias")), node)
            self.editor.replace(node, made, made)
        for node in self.edits.gone:
            self._take_out(node)
        self.editor.drop(self._orphans)

    def _renew_constants(self) -> None:
        """New numbers under the old name where all readers agree, else a parameter for each version of them."""
        settled: dict[fx.Node, bool] = {}
        copies: dict[fx.Node, list[tuple[NDArray[Any], fx.Node]]] = {}
        for (node, place), array in self.edits.operands.items():
            old = argument(node, place)
            if isinstance(old, fx.Node) and old in self.context.tensors:
                if old not in settled:
                    settled[old] = self._renew(old)
                if settled[old]:
                    continue
            if not isinstance(old, fx.Node):
                set_argument(node, place, self._parameter(array, node, self._name(node, place)))
                continue
            known = copies.setdefault(old, [])
            new = next((made for other, made in known if np.array_equal(other, array)), None)
            if new is None:
                new = self._parameter(array, node, self._name(node, place), old)
                known.append((array, new))
            set_argument(node, place, new)
            self._orphans.append(old)

    def _renew(self, old: fx.Node) -> bool:
        """Put new numbers behind a placeholder, if all of its readers want the same."""
        agreed = renewable(self.edits, self.context, old)
        if agreed is not None:
            for alias in {old, *self.context.aliases(old)}:
                self.editor.set_tensor(alias, agreed)
        return agreed is not None

    @staticmethod
    def _name(node: fx.Node, place: Place) -> str:
        default = "bias" if place == (2,) or node.op == "output" else "weight"
        return argument_name(node, place) or default

    def _parameter(self, array: NDArray[Any], node: fx.Node, name: str, old: fx.Node | None = None) -> fx.Node:
        """A new parameter for a node, of the element type of what it read before, else of what it makes."""
        value = fake(node) if fake(node) is not None else fake(value_of(node))
        like = self.context.tensors.get(old) if old is not None else None
        if like is None:
            dtype = (fake(old) if old is not None else value).dtype  # type: ignore[union-attr]
            like = torch.empty(0, dtype=dtype, device=value.device if value is not None else "cpu")
        return self.editor.parameter(array, like, node, name)

    def _replace(self, node: fx.Node, scale: NDArray[Any] | None, shift: NDArray[Any] | None) -> None:
        """An affine that stays becomes a multiplication, an addition, or both."""
        x = self._feature(node)
        value, after, like = x, node, value_of(node)
        for target, array, name in ((MUL, scale, "scale"), (ADD, shift, "shift")):
            if array is None:
                continue
            after = self.editor.insert(after, target, (value, self._parameter(array, node, name)), node, fake(like))
            value = after
        self._swap(node, value)

    def _replace_by_convolution(self, node: fx.Node, weight: NDArray[Any], bias: NDArray[Any] | None) -> None:
        """A BatchNorm that stays becomes a depthwise convolution."""
        like = value_of(node)
        held = None if bias is None else self._parameter(bias, node, "bias")
        n = weight.ndim - 2
        args = (self._feature(node), self._parameter(weight, node, "weight"), held, [1] * n, [0] * n, [1] * n)
        target = getattr(torch.ops.aten, f"conv{n}d").default
        self._swap(node, self.editor.insert(node, target, (*args, len(weight)), node, fake(like)))

    def _swap(self, node: fx.Node, value: fx.Node) -> None:
        """The readers of a node read another value."""
        self.editor.replace(value_of(node), value)
        self.editor.vanish(node, entirely=False)
        self._orphans.append(value_of(node))

    def _feature(self, node: fx.Node) -> fx.Node:
        return next(n for n in node.all_input_nodes if self.context.feature(n))

    def _take_out(self, node: fx.Node) -> None:
        """The readers of a node that vanishes read its feature."""
        value = value_of(node)
        self.editor.replace(value, self._feature(node))
        self.editor.vanish(node)
        self._orphans.append(value)
