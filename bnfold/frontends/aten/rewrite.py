"""Carrying out edits on an exported program: new weights, no BatchNorms, everything else untouched.

The program that is handed in is a copy with a graph and a signature of its own; its tensors are shared with the
original, so none of them is written to: what changes is a new tensor under the same name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    TensorArgument,
)

from bnfold.frontends.aten.context import CONSTANT_KINDS, Context
from bnfold.frontends.aten.edits import Edits, renewable
from bnfold.frontends.aten.nodes import (
    BATCH_NORMS,
    argument,
    argument_name,
    element,
    fake,
    module_stack,
    opname,
    set_argument,
    to_tensor,
)


def rewrite_program(program: ExportedProgram, edits: Edits, context: Context) -> ExportedProgram:
    """Apply edits to a program.

    Args:
        program: In functional form; its graph is changed.
        edits: What to change.
        context: What the readers knew of it.

    Returns:
        A program of the same inputs and outputs.
    """
    return _Rewriter(program, edits, context).run()


class _Rewriter:
    """One program being rewritten."""

    def __init__(self, program: ExportedProgram, edits: Edits, context: Context) -> None:
        self.program, self.edits, self.context = program, edits, context
        self.graph = program.graph
        self.state = dict(program.state_dict)
        self.constants = dict(program.constants)
        self.specs: dict[str, InputSpec] = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self.order: list[str] = [spec.arg.name for spec in program.graph_signature.input_specs]
        self.fake_mode = next(
            (t.fake_mode for n in self.graph.nodes if isinstance(t := fake(n), torch._subclasses.FakeTensor)),
            FakeTensorMode(allow_non_fake_inputs=True),
        )
        self._orphans: list[fx.Node] = []
        self._renamed: dict[str, str] = {}

    def run(self) -> ExportedProgram:
        """Rewrite what changes, then take out what vanished."""
        self._renew_constants()
        for node, (scale, shift) in self.edits.replaced.items():
            self._replace(node, scale, shift)
        for node, array in self.edits.added.items():
            self._follow(node, torch.ops.aten.add.Tensor, self._parameter(array, node, "bias"))
        for node in self.edits.gone:
            self._take_out(node)
        self._drop(self._orphans)
        self._drop_counters()
        module = self.program.graph_module
        module.recompile()
        signature = self._signature()
        self._rename_values(self.program)
        return self.program._update(module, signature, state_dict=self.state, constants=self.constants)

    def _renew_constants(self) -> None:
        """New numbers under the old name where all readers agree, else a parameter for each reader."""
        settled: dict[fx.Node, bool] = {}
        for (node, place), array in self.edits.operands.items():
            old = argument(node, place)
            if isinstance(old, fx.Node) and old in self.context.tensors:
                if old not in settled:
                    agreed = renewable(self.edits, self.context, old)
                    settled[old] = agreed is not None
                    if agreed is not None:
                        for alias in {old, *self.context.aliases(old)}:
                            self._set_tensor(alias, agreed)
                if settled[old]:
                    continue
            name = "bias" if place == (2,) or node.op == "output" else "weight"
            name = argument_name(node, place) or name
            new = self._parameter(array, node, name, old if isinstance(old, fx.Node) else None)
            set_argument(node, place, new)
            if isinstance(old, fx.Node):
                self._orphans.append(old)

    def _set_tensor(self, placeholder: fx.Node, array: NDArray[Any]) -> None:
        """New numbers behind a placeholder, and under every other name of its tensor."""
        old = self.context.tensors[placeholder]
        new = _like(to_tensor(array, old), old)
        for table in (self.state, self.constants):
            for key, tensor in table.items():
                if isinstance(tensor, torch.Tensor) and _is_same(tensor, old):
                    table[key] = new

    def _parameter(self, array: NDArray[Any], node: fx.Node, name: str, old: fx.Node | None = None) -> fx.Node:
        """A new parameter of the program, named after the module that reads it."""
        value = fake(node) if fake(node) is not None else fake(element(node, 0)[0])
        like = self.context.tensors.get(old) if old is not None else None
        device = value.device if value is not None else torch.device("cpu")
        dtype = (fake(old) if old is not None else value).dtype  # type: ignore[union-attr]
        if like is None:
            like = torch.empty(0, dtype=dtype, device=device)
        tensor = to_tensor(np.asarray(array), like)
        stack = module_stack(node)
        target = self._fresh(f"{stack[-1]}.{name}" if stack and stack[-1] else f"{node.name}_{name}")
        parameter = torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        self.state[target] = parameter
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            placeholder: fx.Node = self.graph.placeholder("p_" + target.replace(".", "_"))
        placeholder.meta["val"] = self.fake_mode.from_tensor(parameter, static_shapes=True)
        self.specs[placeholder.name] = InputSpec(InputKind.PARAMETER, TensorArgument(placeholder.name), target)
        self.order.insert(0, placeholder.name)
        return placeholder

    def _fresh(self, wanted: str) -> str:
        taken = {*self.state, *self.constants}
        name, n = wanted, 2
        while name in taken:
            name, n = f"{wanted}_{n}", n + 1
        return name

    def _replace(self, node: fx.Node, scale: NDArray[Any] | None, shift: NDArray[Any] | None) -> None:
        """An affine that stays becomes a multiplication, an addition, or both."""
        x = next(n for n in node.all_input_nodes if self.context.feature(n))
        value, after = x, node
        for target, array in ((torch.ops.aten.mul.Tensor, scale), (torch.ops.aten.add.Tensor, shift)):
            if array is None:
                continue
            constant = self._parameter(array, node, "scale" if target is torch.ops.aten.mul.Tensor else "shift")
            after = self._insert(after, target, (value, constant))
            value = after
        node.replace_all_uses_with(value, delete_user_cb=lambda user: user is not value or node is x)
        self._orphans.append(node)
        self._renamed[node.name] = value.name

    def _follow(self, node: fx.Node, target: Any, constant: fx.Node) -> None:
        """Put an operator with a constant behind a node."""
        after = self._insert(node, target, (node, constant))
        node.replace_all_uses_with(after, delete_user_cb=lambda user: user is not after)
        self._renamed[node.name] = after.name

    def _insert(self, node: fx.Node, target: Any, args: tuple[fx.Node, ...]) -> fx.Node:
        with self.graph.inserting_after(node):
            made: fx.Node = self.graph.call_function(target, args)
        made.meta = {key: node.meta[key] for key in ("val", "nn_module_stack", "stack_trace") if key in node.meta}
        return made

    def _take_out(self, node: fx.Node) -> None:
        """The readers of a node that vanishes read its feature."""
        x = next(n for n in node.all_input_nodes if self.context.feature(n))
        value = node if fake(node) is not None else element(node, 0)[0]
        value.replace_all_uses_with(x)
        self._renamed[value.name] = x.name
        self._orphans.append(value)

    def _drop(self, nodes: Iterable[fx.Node]) -> None:
        """Take out nodes that nothing reads any more, and what only they read; inputs of the user stay."""
        queue = list(dict.fromkeys(nodes))
        while queue:
            node = queue.pop()
            if node.users or node not in self.graph.nodes:
                continue
            if node.op == "placeholder":
                spec = self.specs.get(node.name)
                if spec is None or spec.kind not in CONSTANT_KINDS or spec.target is None:
                    continue
                self._forget(node.name)
            inputs = list(node.all_input_nodes)
            self.graph.erase_node(node)
            queue += inputs

    def _forget(self, name: str) -> None:
        spec = self.specs.pop(name)
        self.order.remove(name)
        if all(other.target != spec.target for other in self.specs.values()):
            self.state.pop(str(spec.target), None)
            self.constants.pop(str(spec.target), None)

    def _drop_counters(self) -> None:
        """`num_batches_tracked` of a BatchNorm that is gone goes with it."""
        left = {
            str(spec.target).rpartition(".")[0]
            for spec in self.specs.values()
            if spec.target is not None and str(spec.target).endswith(".running_mean")
        }
        norms = {stack[-1] for n in self.edits.gone if opname(n) in BATCH_NORMS and (stack := module_stack(n))}
        placeholders = {n.name: n for n in self.graph.nodes if n.op == "placeholder"}
        for name, spec in list(self.specs.items()):
            prefix, _, last = str(spec.target).rpartition(".")
            node = placeholders.get(name)
            if last == "num_batches_tracked" and prefix in norms - left and node is not None and not node.users:
                self._forget(name)
                self.graph.erase_node(node)

    def _signature(self) -> ExportGraphSignature:
        specs = [self.specs[name] for name in self.order]
        [output] = [n for n in self.graph.nodes if n.op == "output"]
        outputs = [
            OutputSpec(spec.kind, TensorArgument(arg.name), spec.target)
            if isinstance(arg, fx.Node) and isinstance(spec.arg, TensorArgument)
            else spec
            for spec, arg in zip(self.program.graph_signature.output_specs, output.args[0], strict=True)
        ]
        return ExportGraphSignature(specs, outputs)

    def _rename_values(self, program: ExportedProgram) -> None:
        """What the calls of modules declare to take and return, where that has another name now or is gone."""
        vanished = {stack[-1] for node in self.edits.gone if (stack := module_stack(node)) and stack[-1]}
        for entry in program.module_call_graph:
            if entry.fqn in vanished:
                entry.signature = None
            for given in (*entry.signature.inputs, *entry.signature.outputs) if entry.signature is not None else ():
                while isinstance(given, TensorArgument) and given.name in self._renamed:
                    given.name = self._renamed[given.name]


def _is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a is b or (a.data_ptr() == b.data_ptr() != 0 and a.shape == b.shape and a.stride() == b.stride())


def _like(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """A tensor as the kind of thing that another is: a parameter, or a plain buffer."""
    return torch.nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else new
