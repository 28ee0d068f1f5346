"""From a model file to what is about to be written: opened, folded, and how to write it and read it back.

One function per kind of output. What comes after is the same for all: `pipeline.convert` writes, reads back, verifies,
times, and moves the file into its place.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.data.batches import Dataset
from bnfold.errors import UnsupportedError
from bnfold.loading.onnxfile import stored_bytes
from bnfold.pipeline.asked import Given, Progress, by_name
from bnfold.pipeline.measuring import recalibrated
from bnfold.pipeline.preprocess import Step, fate
from bnfold.pipeline.source import Source, open_model
from bnfold.pipeline.stages import preprocessed, with_copies_noted, with_nothing_noted
from bnfold.planning.choices import Choices
from bnfold.planning.leftover import said
from bnfold.planning.plan import Plan
from bnfold.reporting.report import FileInfo, Report, version
from bnfold.running.runners import as_ir, count_operators
from bnfold.writing.spill import store_for

if TYPE_CHECKING:
    from torch import nn

    from bnfold.loading.load import Loaded
    from bnfold.tracing.programs import Exported
    from bnfold.writing.export import Staged

WHOLE = "Give the output the suffix .pt2: a program holds weights and graph."


@dataclass(frozen=True)
class Work:
    """A folded model that is not written yet.

    Attributes:
        report: On the fold; nothing is checked yet.
        given: What the caller said, with the data by the names of the inputs.
        before: What the folded model is compared with.
        staged: Writes it where it can be read.
        read_back: What stands in the written file, to be compared.
        bytes_after: Its size, from the path of the written file.
        shown: The graphs of both, to be drawn.
        steps: The preprocessing that both begin with.
        original: The model as it came in, where its BatchNorms were recalibrated.
        folded_only: The same, folded.
    """

    report: Report
    given: Given
    before: object
    staged: Callable[[], AbstractContextManager[Staged]]
    read_back: Callable[[str], object]
    bytes_after: Callable[[str], int | None]
    shown: Callable[[], tuple[object, object]]
    steps: tuple[Step, ...] = ()
    original: object | None = None
    folded_only: object | None = None


def to_onnx(
    source: Source,
    target: Path,
    given: Given,
    choices: Choices,
    tell: Progress,
    *,
    external_data: str,
    force: bool,
    renewal: Dataset | None = None,
) -> Work:
    """Any model as a folded ONNX model, its BatchNorms recalibrated before if there is data to do so."""
    opened, given, report = open_model("convert", source, given, tell)
    unfolded, report, steps = preprocessed(opened, report, given)
    from bnfold.frontends.onnx import fold_model
    from bnfold.loading.onnxfile import data_files, weight_bytes
    from bnfold.writing.export import staged

    fold = partial(fold_model, store=store_for(weight_bytes(unfolded), target))
    original = folded_only = None
    if renewal is not None:
        original, folded_only = unfolded, fold(unfolded, choices)[0]
        unfolded, report = recalibrated(report, unfolded, renewal, tell)
    tell("folding", None)

    folded, plan = fold(unfolded, choices)
    report = with_copies_noted(report, plan)
    came_as_onnx = report.source.format == "onnx"
    report = with_nothing_noted(report, plan, as_onnx=not came_as_onnx, unchanged=not steps and renewal is None)
    after = count_operators(folded)
    left = said(choices.leftover, plan.kept, after.get("BatchNormalization", 0))
    return Work(
        replace(report, plan=plan, notes=(*report.notes, *fate(steps, plan), *left), operators_after=after),
        given,
        before=source.path if came_as_onnx and unfolded is opened else unfolded,
        staged=lambda: staged(folded, target, external_data=external_data, force=force, sources=data_files(opened)),
        read_back=lambda path: path,
        bytes_after=lambda path: stored_bytes(as_ir(path), path),
        shown=lambda: (unfolded, folded),
        steps=steps,
        original=original,
        folded_only=folded_only,
    )


def to_program(source: Source, target: Path, given: Given, choices: Choices, tell: Progress, *, force: bool) -> Work:
    """A PyTorch model as a folded `.pt2` program."""
    _, exported, given, report = _open_torch(source, given, tell)
    tell("folding", None)
    from bnfold.data.tensors import weight_bytes
    from bnfold.pipeline.folding import fold
    from bnfold.tracing.programs import count_nodes
    from bnfold.writing.torchexport import read_program, staged_program

    folded = fold(exported.program, duplicate=choices.duplicate, exclude=choices.exclude)
    return Work(
        _with_plan(report, folded.plan, count_nodes(folded.model)),
        given,
        before=exported.program,
        staged=lambda: staged_program(folded.model, target, force=force),
        read_back=read_program,
        bytes_after=lambda path: weight_bytes(folded.model),
        shown=lambda: (exported.program, folded.model),
    )


def to_state(source: Source, target: Path, given: Given, choices: Choices, tell: Progress, *, force: bool) -> Work:
    """A PyTorch network as a folded state dict, with the recipe that makes a fresh network of the class fit it.

    Raises:
        UnsupportedError: There is no class, or the fold does not fit into it.
    """
    loaded, exported, given, report = _open_torch(source, given, tell)
    module = _network_of_a_class(loaded, target)
    tell("folding", None)
    from bnfold.data.tensors import weight_bytes
    from bnfold.pipeline.folding import fold
    from bnfold.recipes.folded import folded_state
    from bnfold.recipes.remodel import restore_into
    from bnfold.running.networks import of_module, of_program
    from bnfold.running.subjects import TorchSubject
    from bnfold.tracing.programs import count_nodes, export_again
    from bnfold.writing.torchexport import staged_state

    assert exported.example is not None
    args, kwargs = exported.example.call()
    example = dict(exported.example.arguments) if kwargs else args
    folded = fold(module, example, duplicate=choices.duplicate, exclude=choices.exclude)
    if type(folded.model) is not type(module):
        raise UnsupportedError(
            f"{target} would be a folded state dict, which does not fit into {type(module).__name__}: "
            f"{'; '.join(folded.plan.notes)}",
            WHOLE,
        )
    state = folded_state(module, folded.model, sha256=loaded.sha256, version=version())
    declared = of_program(exported.program, "the model").declared

    def subject(network: nn.Module) -> TorchSubject:
        assert exported.example is not None
        return TorchSubject(replace(of_module(network, exported.example), declared=declared))

    def read_back(path: str) -> TorchSubject:
        from bnfold.loading.load import read_folded

        fresh = copy.deepcopy(module)
        restore_into(fresh, read_folded(path), os.fspath(target), type(module).__name__)
        return subject(fresh)

    again = export_again(folded.model, exported)
    return Work(
        _with_plan(report, folded.plan, count_nodes(again)),
        given,
        before=subject(module),
        staged=lambda: staged_state(state, target, force=force),
        read_back=read_back,
        bytes_after=lambda path: weight_bytes(folded.model),
        shown=lambda: (exported.program, again),
    )


def _open_torch(source: Source, given: Given, tell: Progress) -> tuple[Loaded, Exported, Given, Report]:
    """What was loaded, its program with nothing folded, the data by the names of its inputs, and a report."""
    tell("loading", None)
    loaded = source.loaded()
    tell("exporting", None)
    from bnfold.data.tensors import weight_bytes
    from bnfold.tracing.examples import required_inputs
    from bnfold.tracing.programs import count_nodes, export_loaded, program_inputs

    given, notes = by_name(given, required_inputs(loaded.model))
    exported = export_loaded(loaded, inputs=given.specs, data=given.data, dynamic=given.dynamic, seed=given.seed)
    given, also = by_name(given, program_inputs(exported.program))
    report = Report(
        "convert",
        FileInfo(os.fspath(source.path), loaded.sha256, loaded.format),
        operators_before=count_nodes(exported.program),
        bytes_before=weight_bytes(exported.program),
        notes=(*loaded.notes, *notes, *exported.notes, *also),
    )
    return loaded, exported, given, report


def _network_of_a_class(loaded: Loaded, target: Path) -> Any:
    """The module, of which the user has the code."""
    import torch

    if loaded.folded:
        raise UnsupportedError(
            f"{loaded.path} is a folded state dict already, and {target} would be one of another class",
            "Fold the unfolded checkpoint, or give the output the suffix .pt2 or .onnx.",
        )
    if not isinstance(loaded.model, torch.nn.Module) or isinstance(loaded.model, torch.jit.ScriptModule):
        raise UnsupportedError(
            f"{target} would be a folded state dict, and {loaded.path} has no class to restore it into",
            WHOLE,
        )
    return loaded.model


def _with_plan(report: Report, plan: Plan, operators: dict[str, int]) -> Report:
    report = with_nothing_noted(with_copies_noted(report, plan), plan)
    return replace(report, plan=plan, notes=(*report.notes, *plan.notes), operators_after=operators)
