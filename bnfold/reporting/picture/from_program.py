"""An exported program of PyTorch as a view, its operators by the names that a plan of it uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from bnfold.data.tensors import to_array
from bnfold.frontends.aten.context import label_nodes
from bnfold.frontends.aten.nodes import module_stack, opname, position
from bnfold.reporting.picture.views import Operator, View, Weight, in_modules, shape_text
from bnfold.tracing.programs import operator_name

TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
PLAIN = ("conv1d", "conv2d", "conv3d", "linear")


def view_program(program: ExportedProgram) -> View:
    """What there is to draw of a program; operators inside the bodies of control flow are not."""
    labels: dict[fx.Node, str] = {}
    label_nodes(program.graph, labels)
    users = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT}
    operators: list[Operator] = []
    made: dict[fx.Node, int] = {}
    for node in program.graph.nodes:
        reads = tuple(dict.fromkeys(made[source] for source in node.all_input_nodes if source in made))
        if node.op == "placeholder":
            if node.name not in users:
                continue
            operator = Operator(f"input {node.name}", "Input", (), (), _shape(node), None, node.name)
        elif node.op == "output":
            operator = Operator("output", "Output", reads)
        elif op := operator_name(node):
            operator = Operator(labels[node], op, reads, _path(node), _shape(node), _weight(node, program), node.name)
        else:
            if reads:  # a part of a result, or a size
                made[node] = reads[0]
            continue
        made[node] = len(operators)
        operators.append(operator)
    return in_modules(operators)


def _path(node: fx.Node) -> tuple[str, ...]:
    stack = module_stack(node)
    return tuple(part for part in stack[-1].split(".") if part) if stack else ()


def _shape(node: fx.Node) -> str:
    value = node.meta.get("val")
    value = value[0] if isinstance(value, (list, tuple)) and value else value
    return shape_text(tuple(value.shape)) if isinstance(value, torch.Tensor) else ""


def _weight(node: fx.Node, program: ExportedProgram) -> Weight | None:
    name = opname(node)
    if name not in (*TRANSPOSED, *PLAIN):
        return None
    read = _tensor(node, "weight", program)
    return None if read is None else Weight(read, int(name in TRANSPOSED), _tensor(node, "bias", program))


def _tensor(node: fx.Node, name: str, program: ExportedProgram) -> Callable[[], NDArray[Any]] | None:
    """Reads an argument that is stored in the program; None where it is computed or absent."""
    at = position(node, name)
    found = node.args[at] if at < len(node.args) else node.kwargs.get(name)
    if not isinstance(found, fx.Node) or found.op != "placeholder":
        return None
    targets = (spec.target for spec in program.graph_signature.input_specs if spec.arg.name == found.name)
    target = next(targets, None)
    held = None if target is None else program.state_dict.get(target, program.constants.get(target))
    return partial(to_array, held) if isinstance(held, torch.Tensor) else None
