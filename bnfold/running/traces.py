"""What torch.export makes of the networks that are compared or drawn: each traced once, both with the same sizes open.

A module says nothing of its sizes. Beside a model that does (a program, an ONNX file) it is traced with those open that
are open there; two modules, or one alone, with the batch open, and fixed where that cannot be. What is traced is a copy
on the same weights, so nothing that a trace leaves behind is left in the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.export import ExportedProgram

from bnfold.errors import UnsupportedError
from bnfold.frontends.modules.prepare import copied, unwrapped
from bnfold.quiet import quiet
from bnfold.running.pairing import paired
from bnfold.running.subjects import Subject, TorchSubject
from bnfold.running.torchrunner import device_of
from bnfold.tracing.examples import Example, OpenDims, open_dims
from bnfold.tracing.opening import innermost
from bnfold.tracing.programs import export_call

ALONE = "Try torch.export.export(model, args) on its own; its full report names the line of forward."


def traced_alike(subjects: Sequence[Subject]) -> tuple[ExportedProgram | None, ...]:
    """One or two models as programs, None in the place of an ONNX model; nothing is changed.

    Raises:
        UnsupportedError: torch cannot export one of them, or not with the sizes open that the other one leaves open.
    """
    said = [s.declared for s in subjects if not _is_module(s)]
    if len(said) == len(subjects):
        return tuple(s.network.program if isinstance(s, TorchSubject) else None for s in subjects)
    if not said:
        try:
            return tuple(_traced(s, open_dims(_example(s), ())) for s in subjects)
        except UnsupportedError:  # of two, the one that could have stayed open goes with the other
            return tuple(_traced(s, {}) for s in subjects)
    opened = {decl.name: {axis: "open" for axis, size in enumerate(decl.shape) if size is None} for decl in said[0]}
    made: list[ExportedProgram | None] = []
    for subject in subjects:
        if not _is_module(subject):
            made.append(subject.network.program if isinstance(subject, TorchSubject) else None)
            continue
        names = list(_example(subject).tensors())
        if len(names) != len(opened):
            raise UnsupportedError(f"{subject.label} takes {len(names)} inputs, the other one {len(opened)}", ALONE)
        theirs = dict(zip(names, paired(names, list(opened)), strict=True))
        made.append(_traced(subject, {name: opened[theirs[name]] for name in names if opened[theirs[name]]}))
    return tuple(made)


def _is_module(subject: Subject) -> bool:
    return isinstance(subject, TorchSubject) and subject.network.program is None


def _example(subject: Subject) -> Example:
    assert isinstance(subject, TorchSubject)
    assert subject.network.example is not None
    return subject.network.example


def _traced(subject: Subject, dims: OpenDims) -> ExportedProgram:
    """A module as a program with some dimensions open, made once.

    Raises:
        UnsupportedError: torch cannot export it.
    """
    assert isinstance(subject, TorchSubject)
    traces, key = subject.network.traces, repr(sorted((name, sorted(axes)) for name, axes in dims.items()))
    if key not in traces:
        try:
            traces[key] = _export(subject.network.module, _example(subject), dims)
        except Exception as error:  # what somebody's forward raises is not known
            traces[key] = innermost(error)
    found = traces[key]
    if isinstance(found, str):
        raise UnsupportedError(f"torch {torch.__version__} cannot export {subject.label}: {found}", ALONE)
    return found


def _export(module: torch.nn.Module, example: Example, dims: OpenDims) -> ExportedProgram:
    device = device_of(module)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, _ = unwrapped(module)
        ours = module if isinstance(module, torch.jit.ScriptModule) else copied(module, sharing=True)
        here = Example(
            example.signature,
            example.map(lambda _, leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf),
        )
        return export_call(ours, here.stretched(dims), dims)
