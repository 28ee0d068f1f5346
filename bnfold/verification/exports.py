"""Two models as ONNX, so that they can be proved equal: ONNX as it is, PyTorch networks as torch exports them.

    module ──torch.export (traces)──> program ──torch.onnx, nothing folded──> ONNX ──by the names of the model before

Both sides go through the same exporter with the same sizes open, and nothing of the fold takes part in it. What is
proved of them is proved of the networks as far as the exporter says what they do: on the path of the example call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.errors import UnsupportedError
from bnfold.running.pairing import go_by_place, paired
from bnfold.running.subjects import OnnxSubject, Subject
from bnfold.wording import listed
from bnfold.writing.spill import LARGE_BYTES

if TYPE_CHECKING:
    import onnx_ir
    from torch.export import ExportedProgram

SYMBOL = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Exports:
    """Two models to compare.

    Attributes:
        before: The model before.
        after: The model after; its inputs and sizes are called as those before, its outputs in their order.
        exported: Whether torch exported one of them for this.
    """

    before: onnx_ir.Model
    after: onnx_ir.Model
    exported: bool

    @property
    def call(self) -> str:
        """The inputs with their sizes, those that are open on both sides as `?`."""
        sizes = [
            "×".join(
                "?" if not isinstance(a, int) and not isinstance(b, int) else str(a if isinstance(a, int) else b)
                for a, b in zip(mine.shape or (), other.shape or (), strict=False)
            )
            for mine, other in zip(self.before.graph.inputs, self.after.graph.inputs, strict=True)
        ]
        names = [value.name for value in self.before.graph.inputs]
        return ", ".join(f"{name} {size or 'scalar'}" for name, size in zip(names, sizes, strict=True))


def as_onnx(before: Subject, after: Subject) -> Exports:
    """Both models as ONNX; neither is changed.

    Raises:
        UnsupportedError: A network cannot be exported, is too large to be, or is more than a function.
    """
    if isinstance(before, OnnxSubject) and isinstance(after, OnnxSubject):
        return Exports(before.model, after.model, exported=False)
    for subject in (before, after):
        size = subject.bytes
        if not isinstance(subject, OnnxSubject) and size is not None and size >= LARGE_BYTES:
            raise UnsupportedError(
                f"{subject.label} has {size / 1e9:.1f} GB of weights, and networks of PyTorch are exported for a proof "
                f"up to {LARGE_BYTES / 1e9:.1f} GB",
                "Convert both to ONNX.",
            )
    from bnfold.running.traces import traced_alike

    programs = traced_alike((before, after))
    (one, gave), (two, gives) = (
        _of_onnx(subject) if program is None else _of_program(program, subject.label)
        for subject, program in zip((before, after), programs, strict=True)
    )
    if len(one.graph.inputs) != len(two.graph.inputs) or len(gave) != len(gives):
        raise UnsupportedError("their inputs or outputs are not as many", "Compare models that take the same.")
    two = two.clone()
    _called_alike(one, two)
    if go_by_place(before, after):
        places = dict(zip(gives, two.graph.outputs, strict=True))
        two.graph.outputs[:] = [places[name] for name in paired(gave, gives)]
    return Exports(one, two, exported=True)


def _of_onnx(subject: Subject) -> tuple[onnx_ir.Model, list[str]]:
    assert isinstance(subject, OnnxSubject)
    return subject.model, [value.name or "" for value in subject.model.graph.outputs]


def _of_program(program: ExportedProgram, label: str) -> tuple[onnx_ir.Model, list[str]]:
    """A program as ONNX, and what its outputs are called.

    Raises:
        UnsupportedError: torch cannot express it, it draws random numbers, it changes its state, or it returns what is
            no tensor.
    """
    from bnfold.frontends.aten.nodes import is_drawn
    from bnfold.frontends.paths import noted_path
    from bnfold.running.networks import returned
    from bnfold.tracing.capture import finished, numbered, translated
    from bnfold.tracing.programs import program_nodes

    drawn = [node.name for node in program_nodes(program) if is_drawn(node)]
    if drawn:
        raise UnsupportedError(f"{label} draws random numbers ({listed(drawn)})", "Compare networks that draw none.")
    made = translated(program, label)
    functional = made.exported_program
    written = None if functional is None else _written(functional)
    if written or functional is None:
        raise UnsupportedError(
            f"{label} changes {written or 'its state'} when it is called, and a proof is of what it returns",
            "Compare networks without a state.",
        )
    names = list(returned(program) or ())
    model = finished(made)
    if len(names) != len(model.graph.outputs):
        raise UnsupportedError(f"{label} returns more than tensors", "Compare networks that return tensors.")
    taken: set[str] = set()
    for node in model.graph:  # the exporter numbers operators, and a fold that takes one out would shift the numbers
        if (node.name or "").startswith("node_") and (path := noted_path(node)):
            node.name = next(name for name in numbered(f"{'.'.join(path)}/{node.op_type}") if name not in taken)
        taken.add(node.name or "")
    return model, names


def _written(program: ExportedProgram) -> str:
    """What a program in functional form writes to besides its outputs, in words; empty where that is nothing."""
    signature = program.graph_signature
    buffers = [*signature.buffers_to_mutate.values(), *signature.parameters_to_mutate.values()]
    return listed(buffers) if buffers else "its inputs" if signature.user_inputs_to_mutate else ""


def _called_alike(one: onnx_ir.Model, two: onnx_ir.Model) -> None:
    """Give the inputs of a model, and the sizes that they have, the names of those of another one, in place.

    Every other name of a size is made up, and becomes one that the other model does not have.
    """
    import onnx_ir as ir

    ours = {value.name or "": value for value in one.graph.inputs}
    theirs = {value.name or "": value for value in two.graph.inputs}
    pairs = [(ours[name], theirs[other]) for name, other in zip(ours, paired(list(ours), list(theirs)), strict=True)]
    sizes: dict[str, set[str]] = {}
    for mine, other in pairs:
        for a, b in zip(mine.shape or (), other.shape or (), strict=False):
            if isinstance(a, ir.SymbolicDim) and isinstance(b, ir.SymbolicDim) and a.value and b.value:
                sizes.setdefault(b.value, set()).add(a.value)
    renamed = {other: min(names) for other, names in sizes.items() if len(names) == 1}
    for graph in two.graphs():
        for value in _values(graph):
            if value.shape is not None:
                dims = [_renamed(dim, renamed) if isinstance(dim, ir.SymbolicDim) else dim for dim in value.shape]
                value.shape = ir.Shape(dims)
    names = {mine.name for mine, _ in pairs}
    for graph in two.graphs():
        for value in _values(graph):
            if value.name in names and not value.is_graph_input():
                value.name = f"{value.name} after"
    for index, (_, other) in enumerate(pairs):
        other.name = f"input {index} after"
    for mine, other in pairs:
        other.name = mine.name


def _values(graph: onnx_ir.Graph) -> list[onnx_ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]


def _renamed(dim: onnx_ir.SymbolicDim, renamed: Mapping[str, str]) -> str | None:
    """A size by its new name: it may be an expression, like `s77*49`."""
    if not dim.value:
        return None
    return SYMBOL.sub(lambda found: renamed.get(found[0], f"{found[0]}_after"), dim.value)
