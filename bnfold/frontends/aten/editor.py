"""An exported program being changed: its graph in place, its tensors and signature in tables until it is finished.

The tensors are shared with the program that came in, so none of them is written to: what changes is a new tensor under
the same name.
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

from bnfold.frontends.aten.nodes import BATCH_NORMS, element, fake, module_stack, opname, to_tensor
from bnfold.frontends.aten.stored import CONSTANT_KINDS, constant_tensors

COPIED_META = ("val", "nn_module_stack", "stack_trace")


class Editor:
    """One program being changed.

    Attributes:
        program: In functional form, as it came; its graph is the one that changes.
        graph: That graph.
        state: Its parameters and persistent buffers by name.
        constants: Its other tensors by name.
        specs: What each placeholder is, by name.
        labels: Display names that nodes keep from one reading to the next.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph: fx.Graph = program.graph
        self.state: dict[str, Any] = dict(program.state_dict)
        self.constants: dict[str, Any] = dict(program.constants)
        self.labels: dict[fx.Node, str] = {}
        signature = program.graph_signature
        self.specs: dict[str, InputSpec] = {spec.arg.name: spec for spec in signature.input_specs}
        self._order: list[str] = [spec.arg.name for spec in signature.input_specs]
        self._mutated = {
            *signature.buffers_to_mutate.values(),
            *getattr(signature, "parameters_to_mutate", {}).values(),
        }
        self._renamed: dict[str, str] = {}
        self._vanished: set[str] = set()
        self._norms: set[str] = set()
        self._fake_mode = next(
            (t.fake_mode for n in self.graph.nodes if isinstance(t := fake(n), torch._subclasses.FakeTensor)),
            FakeTensorMode(allow_non_fake_inputs=True),
        )

    @property
    def changes_with_each_call(self) -> bool:
        """Whether a run leaves another state behind."""
        return bool(self._mutated)

    def tensors(self) -> dict[fx.Node, torch.Tensor]:
        """The tensor behind each placeholder that is the same at every run."""
        return constant_tensors(self.graph, self.specs.values(), self._mutated, (self.state, self.constants))

    def targets(self) -> dict[fx.Node, str]:
        """Names of parameters and buffers by their placeholder."""
        kinds = (InputKind.PARAMETER, InputKind.BUFFER)
        nodes = {node.name: node for node in self.graph.nodes if node.op == "placeholder"}
        return {
            nodes[name]: str(spec.target) for name, spec in self.specs.items() if spec.kind in kinds and name in nodes
        }

    def set_tensor(self, placeholder: fx.Node, array: NDArray[Any]) -> None:
        """New numbers behind a placeholder, and under every other name of its tensor."""
        name = str(self.specs[placeholder.name].target)
        old = self.state.get(name)
        old = self.constants[name] if old is None else old
        new = _like(to_tensor(array, old), old)
        for table in (self.state, self.constants):
            for key, tensor in table.items():
                if isinstance(tensor, torch.Tensor) and _is_same(tensor, old):
                    table[key] = new

    def parameter(
        self, array: NDArray[Any], like: torch.Tensor, node: fx.Node, name: str, trains: bool = True
    ) -> fx.Node:
        """A new parameter of the program, named after the module that reads it.

        Args:
            array: Its numbers.
            like: Gives its element type and device.
            node: What will read it.
            name: What it is to its reader.
            trains: Whether it asks for gradients.
        """
        stack = module_stack(node)
        target = self._fresh(f"{stack[-1]}.{name}" if stack and stack[-1] else f"{node.name}_{name}")
        tensor = to_tensor(np.asarray(array), like)
        parameter = torch.nn.Parameter(tensor, requires_grad=trains and tensor.is_floating_point())
        self.state[target] = parameter
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            placeholder: fx.Node = self.graph.placeholder("p_" + target.replace(".", "_"))
        placeholder.meta["val"] = self._fake_mode.from_tensor(parameter, static_shapes=True)
        self.specs[placeholder.name] = InputSpec(InputKind.PARAMETER, TensorArgument(placeholder.name), target)
        self._order.insert(0, placeholder.name)
        return placeholder

    def _fresh(self, wanted: str) -> str:
        taken = {*self.state, *self.constants}
        name, n = wanted, 2
        while name in taken:
            name, n = f"{wanted}_{n}", n + 1
        return name

    def insert(self, at: fx.Node, target: Any, args: tuple[Any, ...], like: fx.Node, val: Any = None) -> fx.Node:
        """Put an operator behind a node, said to be made where another one was.

        Args:
            at: What it follows.
            target: The operator.
            args: Its arguments.
            like: The node whose module and source line it gets.
            val: The tensor without numbers that stands for its result; that of `like` if None.
        """
        with self.graph.inserting_after(at):
            made: fx.Node = self.graph.call_function(target, args)
        made.meta = {key: like.meta[key] for key in COPIED_META if key in like.meta}
        if val is not None:
            made.meta["val"] = val
        return made

    def estimate(self, target: Any, args: tuple[Any, ...]) -> Any:
        """The tensor without numbers that an operator returns for the values of some nodes."""
        values = fx.map_arg(args, lambda node: node.meta["val"])
        with self._fake_mode, torch.no_grad():
            return target(*values)

    def replace(self, value: fx.Node, new: fx.Node, *but: fx.Node) -> None:
        """The readers of a value read another one, but for some nodes."""
        value.replace_all_uses_with(new, delete_user_cb=lambda user: user not in but)
        self._renamed[value.name] = new.name

    def vanish(self, node: fx.Node, *, entirely: bool = True) -> None:
        """Note that an operator is about to go, and with it what its module declares to take and return.

        Args:
            node: The operator.
            entirely: Whether nothing takes its place.
        """
        stack = module_stack(node)
        if stack and stack[-1]:
            self._vanished |= {stack[-1]} if entirely else set()
            self._norms |= {stack[-1]} if opname(node) in BATCH_NORMS else set()

    def drop(self, nodes: Iterable[fx.Node]) -> None:
        """Take out nodes that nothing reads any more, and what only they read; inputs of the user stay."""
        queue = list(dict.fromkeys(nodes))
        while queue:
            node = queue.pop()
            if node.users or node._erased:
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
        self._order.remove(name)
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
        placeholders = {n.name: n for n in self.graph.nodes if n.op == "placeholder"}
        for name, spec in list(self.specs.items()):
            prefix, _, last = str(spec.target).rpartition(".")
            node = placeholders.get(name)
            if last == "num_batches_tracked" and prefix in self._norms - left and node is not None and not node.users:
                self._forget(name)
                self.graph.erase_node(node)

    def finished(self) -> ExportedProgram:
        """The program as it is now."""
        self._drop_counters()
        module = self.program.graph_module
        module.recompile()
        self._rename_values()
        return self.program._update(module, self._signature(), state_dict=self.state, constants=self.constants)

    def _signature(self) -> ExportGraphSignature:
        specs = [self.specs[name] for name in self._order]
        [output] = [n for n in self.graph.nodes if n.op == "output"]
        outputs = [
            OutputSpec(spec.kind, TensorArgument(arg.name), spec.target)
            if isinstance(arg, fx.Node) and isinstance(spec.arg, TensorArgument)
            else spec
            for spec, arg in zip(self.program.graph_signature.output_specs, output.args[0], strict=True)
        ]
        return ExportGraphSignature(specs, outputs)

    def _rename_values(self) -> None:
        """What the calls of modules declare to take and return, where that has another name now or is gone."""
        for entry in self.program.module_call_graph:
            if entry.fqn in self._vanished:
                entry.signature = None
            for given in (*entry.signature.inputs, *entry.signature.outputs) if entry.signature is not None else ():
                while isinstance(given, TensorArgument) and given.name in self._renamed:
                    given.name = self._renamed[given.name]


def value_of(node: fx.Node) -> fx.Node:
    """The tensor that a node makes; the first element of the tuple it returns."""
    return node if fake(node) is not None else element(node, 0)[0]


def _is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a is b or {a.layout, b.layout} != {torch.strided}:  # a sparse tensor has no memory of one piece
        return a is b
    return a.data_ptr() == b.data_ptr() != 0 and a.shape == b.shape and a.stride() == b.stride()


def _like(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """A tensor as the kind of thing that another is: a parameter, or a plain buffer."""
    return torch.nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else new
