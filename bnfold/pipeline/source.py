"""The files that came in, opened: to be folded, or to be run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bnfold.data.feeds import check_given
from bnfold.errors import UsageError
from bnfold.loading.arch import check_arch
from bnfold.loading.onnxfile import stored_bytes
from bnfold.loading.places import check_file
from bnfold.pipeline.asked import Data, Given, Progress, StrPath, by_name
from bnfold.pipeline.stages import with_exporter_noted
from bnfold.reporting.report import FileInfo, Report
from bnfold.running.runners import count_operators
from bnfold.running.subjects import OnnxSubject, Subject, open_subjects

if TYPE_CHECKING:
    import onnx_ir

    from bnfold.loading.arch import Arch
    from bnfold.loading.load import Loaded


@dataclass(frozen=True)
class Source:
    """The model that came in, and how to open it.

    Attributes:
        path: The file.
        arch: The code that builds the network, for checkpoints.
        arch_args: Keyword arguments of that code.
        trust_pickle: Whether code in the file may run.
        opset: The ONNX opset to export.
        max_bytes: What the file, and its tensors together, may have at most.
    """

    path: StrPath
    arch: Arch | None
    arch_args: Mapping[str, str] | None
    trust_pickle: bool
    opset: int | None
    max_bytes: int | str

    def check(self, command: str, after: StrPath | None = None) -> None:
        """Refuses what cannot be opened, before any work.

        Args:
            command: What is asked for, to say how a file is passed.
            after: A second file, if there may be one.

        Raises:
            UnreadableError: There is no such file.
            UsageError: `arch` names no code.
        """
        one_file = command in ("convert", "inspect", "drift")
        check_file(self.path, f"bnfold {command}" if one_file else "")
        if after is not None:
            check_file(after)
        if isinstance(self.arch, str):
            check_arch(self.arch)

    def loaded(self, *, arch_may_be_superfluous: bool = False) -> Loaded:
        """What stands in the file; where `arch` is for several files, it may have been meant for another one."""
        from bnfold.loading.load import load

        return load(
            self.path,
            arch=self.arch,
            arch_args=self.arch_args,
            trust_pickle=self.trust_pickle,
            max_bytes=self.max_bytes,
            arch_may_be_superfluous=arch_may_be_superfluous,
        )


def open_model(command: str, source: Source, given: Given, tell: Progress) -> tuple[onnx_ir.Model, Given, Report]:
    """The unfolded model as ONNX, the data by the names of its inputs, and a report with nothing measured yet."""
    tell("loading", None)
    loaded = source.loaded()
    unfolded, notes = loaded.model, loaded.notes
    if loaded.format != "onnx" or given.dynamic or source.opset is not None:
        tell("exporting", None)
        from bnfold.tracing.capture import capture  # imports torch, which takes seconds and an ONNX file does not need
        from bnfold.tracing.examples import required_inputs

        given, said = by_name(given, required_inputs(loaded.model))
        notes += said
        captured = capture(
            loaded, inputs=given.specs, data=given.data, dynamic=given.dynamic, opset=source.opset, seed=given.seed
        )
        unfolded, notes = captured.model, (*notes, *captured.notes)
    import onnx_ir

    assert isinstance(unfolded, onnx_ir.Model)
    given, said = by_name(given, input_names(unfolded))
    notes += said
    if unfolded is loaded.model and (given.specs or given.data is not None):
        check_given(unfolded, given.specs, _named(given.data, input_names(unfolded)))
    report = Report(
        command,
        FileInfo(os.fspath(source.path), loaded.sha256, loaded.format),
        operators_before=count_operators(unfolded),
        bytes_before=stored_bytes(unfolded, source.path if loaded.format == "onnx" else None),
        notes=notes,
    )
    if loaded.format == "onnx":
        report = with_exporter_noted(report, unfolded)
    return unfolded, given, report


def open_files(
    command: str, source: Source, after: StrPath | None, given: Given, tell: Progress
) -> tuple[tuple[Subject, ...], Given, Report]:
    """One or two files as something to run, the data by the names of the inputs, and a report with nothing measured.

    Every later step takes them as they are opened here, so that a network is exported once for all of them.

    Args:
        command: What the report is of.
        source: The file before; that after is opened likewise.
        after: The other file, if there is one.
        given: What the caller said.
        tell: Takes the progress.
    """
    tell("loading", None)
    sources = [source] if after is None else [source, replace(source, path=after)]
    loaded = [each.loaded(arch_may_be_superfluous=True) for each in sources]
    if source.arch is not None and not any(each.format in ("state-dict", "safetensors") for each in loaded):
        names = " and ".join(each.path for each in loaded)
        holds = "holds the network itself" if after is None else "hold the networks themselves"
        raise UsageError(f"--arch was given, and {names} {holds}", "Drop --arch.")
    given, notes = by_name(given, _input_names(loaded[0]))
    report = Report(
        command,
        FileInfo(os.fspath(source.path), loaded[0].sha256, loaded[0].format),
        operators_before=_operators(loaded[0]),
        bytes_before=_bytes(loaded[0]),
        notes=(*notes, *dict.fromkeys(note for each in loaded for note in each.notes)),
    )
    with ExitStack() as stack:  # which closes nothing: what is run lies in files, or in memory
        models = open_subjects([_to_run(each) for each in loaded], stack, given.data, given.specs, given.seed)
    if after is None:
        return models, given, report
    return (
        models,
        given,
        replace(
            report,
            output=FileInfo(os.fspath(after), loaded[1].sha256, loaded[1].format),
            operators_after=_operators(loaded[1]),
            bytes_after=_bytes(loaded[1]),
        ),
    )


def _to_run(loaded: Loaded) -> object:
    """What was loaded, ONNX as the file it lies in."""
    if loaded.format != "onnx":
        return loaded.model
    return OnnxSubject(os.path.abspath(loaded.path), loaded.model)  # type: ignore[arg-type]


def _input_names(loaded: Loaded) -> list[str]:
    """The inputs that must be fed."""
    if loaded.format == "onnx":
        return input_names(loaded.model)  # type: ignore[arg-type]
    if loaded.format == "pt2":
        from bnfold.tracing.programs import program_inputs

        return program_inputs(loaded.model)
    from bnfold.tracing.examples import required_inputs

    return required_inputs(loaded.model)


def _named(data: Data | None, names: Sequence[str]) -> Mapping[str, NDArray[Any]] | None:
    """Data by the names of the inputs: an array without a name is for the only one."""
    if data is None or isinstance(data, Mapping):
        return data
    return {names[0]: data} if len(names) == 1 else None


def input_names(model: onnx_ir.Model) -> list[str]:
    """The inputs that must be fed."""
    return [value.name or "" for value in model.graph.inputs if value.name not in model.graph.initializers]


def _operators(loaded: Loaded) -> dict[str, int] | None:
    """Operators by name; None for a module, of which only an export could tell."""
    if loaded.format == "onnx":
        return count_operators(loaded.model)
    if loaded.format == "pt2":
        from bnfold.tracing.programs import count_nodes

        return count_nodes(loaded.model)  # type: ignore[arg-type]
    return None


def _bytes(loaded: Loaded) -> int | None:
    if loaded.format == "onnx":
        return stored_bytes(loaded.model, loaded.path)  # type: ignore[arg-type]
    from bnfold.data.tensors import weight_bytes

    return weight_bytes(loaded.model)
