"""The straight line: load → capture → fold → write → verify → bench → report; every command is a prefix of it.

What is checked is the file as written, before it gets its name: the folded model is written beside the output and read
back from there. Only a file that passed every check is moved to the output's name; one that did not stays beside it as
`OUT.rejected`. Until then the output is as it was, whatever happens.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bnfold.benchmark.bench import DEFAULT_MIN_TIME_S, check_options
from bnfold.errors import UsageError
from bnfold.loading.arch import Arch
from bnfold.pipeline.asked import (
    Data,
    Progress,
    StrPath,
    TimingOptions,
    check_asked,
    check_level,
    check_paths,
    output_format,
    read_given,
)
from bnfold.pipeline.isolation import Limits, isolated
from bnfold.pipeline.measuring import DataSource, check_renewal, drifted, measured, open_data, open_measurement
from bnfold.pipeline.preprocess import fate
from bnfold.pipeline.source import Source, open_files, open_model
from bnfold.pipeline.stages import (
    judged,
    pictured,
    preprocessed,
    timed,
    verified,
    with_copies_noted,
    with_data_noted,
)
from bnfold.pipeline.work import to_onnx, to_program, to_state
from bnfold.planning.choices import Choices
from bnfold.planning.exclusion import patterns_of
from bnfold.reporting.report import FileInfo, Report
from bnfold.running.devices import require_device
from bnfold.specs import MAX_BYTES, ChannelNumbers, DynamicDim, InputSpec
from bnfold.verification.compare import check_tolerance
from bnfold.writing.files import check_folder
from bnfold.writing.spill import store_for


def convert(
    model: StrPath,
    output: StrPath | None = None,
    *,
    arch: Arch | None = None,
    arch_args: Mapping[str, str] | None = None,
    inputs: Sequence[str | InputSpec] = (),
    input_data: StrPath | Data | None = None,
    dynamic: Sequence[str | DynamicDim] = (),
    mean: ChannelNumbers | None = None,
    std: ChannelNumbers | None = None,
    scale: ChannelNumbers | None = None,
    opset: int | None = None,
    seed: int = 0,
    trust_pickle: bool = False,
    max_bytes: int | str = MAX_BYTES,
    isolate: Limits | None = None,
    leftover: str = "keep",
    norm_affine: bool = False,
    duplicate: str = "auto",
    exclude: str | Sequence[str] = (),
    external_data: str = "auto",
    force: bool = False,
    verify: str = "full",
    rtol: float | None = None,
    atol: float | None = None,
    per_site: bool = False,
    bench: bool = False,
    runtimes: Sequence[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    min_time: float = DEFAULT_MIN_TIME_S,
    data: DataSource | None = None,
    metric: str | Callable[..., Any] | None = None,
    recalibrate: DataSource | None = None,
    fail_on: Sequence[str] = (),
    picture: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Takes a trained model to a file with its BatchNorms folded, and checks that it is the same function.

    Args:
        model: A file of any format `load` knows.
        output: The file to write; its suffix picks the format: `.onnx`, `.pt2` (an exported program), `.safetensors` or
            `.pt` (the folded state dict, for `restore`). None takes `MODEL-stem.folded.onnx` beside the model.
        arch: The code that builds the network, for checkpoints: `pkg.mod:factory`, `path/file.py:factory`, or the
            class or function itself.
        arch_args: Keyword arguments of that code.
        inputs: Shapes of the example inputs, `[NAME:]SHAPE[:DTYPE]`.
        input_data: Arrays to export, verify and time with: a `.npy` or `.npz` file, or the arrays themselves.
        dynamic: Dimensions to leave open besides the batch, `NAME:AXIS=SYMBOL`.
        mean: Preprocessing `(x·scale − mean)/std` becomes part of the model, and folds as far as it can. What is
            subtracted: a number, one per channel, a mapping from inputs to either, or text, `[NAME:]X,...`.
        std: What is divided by, after the mean.
        scale: What is multiplied by, before the mean. All three for ONNX only.
        opset: The ONNX opset; None takes torch's default.
        seed: Of the drawn inputs.
        trust_pickle: Whether code in the file may run.
        max_bytes: What the file, and its tensors together, may have at most, as a number or like `"8GB"`.
        isolate: Limits of memory and time for a process of its own that does the work; None does it here.
        leftover: What a BatchNorm that must stay becomes: `"keep"` as it is, `"affine"` Mul and Add (a single Add where
            its scale can go elsewhere), `"conv"` a depthwise 1×1 Conv. The last two for ONNX only.
        norm_affine: Whether the scale and bias of LayerNormalization, RMSNormalization, GroupNormalization and
            InstanceNormalization are folded, too. For ONNX only.
        duplicate: Whether operators that share a weight may get copies of it where that removes BatchNorms: `"never"`,
            `"auto"` (while the weights grow by at most 5 % or 1 MB) or `"always"`.
        exclude: BatchNorms that stay as they are: their names, modules they lie in, or patterns (`*`, `?`) of either.
        external_data: `"auto"`, `"always"` or `"never"`: whether weights go into a file of their own.
        force: Whether an existing output may be replaced.
        verify: `"full"` proves from their weights that both models are the same function, and runs both; `"quick"` only
            runs both; `"off"`. The report says which level was reached.
        rtol: Largest error as a part of the output's scale; None takes the dtype's own.
        atol: What is allowed on top of it.
        per_site: Also report the errors inside, at every site; done by itself where verification fails.
        bench: Whether to time both models.
        runtimes: Where to time them; None takes `ort` and `ort-as-written` for ONNX, `torch` for the others.
        device: Where to time them: `"cpu"` or `"cuda"`.
        threads: Threads to time them with; None takes every core.
        min_time: Seconds to time each runtime for.
        data: Rows to measure both models on: a `.npz` file with the arrays `x` and `y`, a folder of images by class,
            `pkg.mod:loader`, or the loader itself: an iterable of batches (x, y), or a callable that returns one.
        metric: `"top1"` (what None takes where there is data), `"top5"`, `pkg.mod:function`, or a function of
            (output, y) that returns one score per row.
        recalibrate: Rows to take new statistics of every BatchNorm from before folding, like `data`; labels are not
            needed. For ONNX only.
        fail_on: Conditions under which the result is rejected, e.g. `"kept>0"`.
        picture: Whether the report is to hold the graphs and the weights of both models, as a page shows them.
        progress: Called with the stage's name and the part of it that is done (None: unknown).

    Returns:
        The report. Where `report.passed` is false nothing was written to `output`, and `report.rejected` says where the
        folded model was left.

    Raises:
        BnfoldError: Something went wrong; the output is as it was.
    """
    if isolate is not None:
        return isolated("convert", locals())
    from bnfold.writing.export import check_writable

    check_paths("convert", model, output)
    tell = progress or _silent
    given = read_given(
        inputs,
        input_data,
        dynamic,
        fail_on,
        command="convert",
        seed=seed,
        mean=mean,
        std=std,
        scale=scale,
        max_bytes=max_bytes,
    )
    options = TimingOptions(runtimes, threads, min_time, device)
    target = default_output(model) if output is None else Path(output)
    asked = open_measurement(data, metric, given)
    renewal = None if recalibrate is None else open_data(recalibrate, given, "--recalibrate")
    source = Source(model, arch, arch_args, trust_pickle, opset, max_bytes)
    check_level(verify)
    if per_site and verify == "off":
        raise UsageError("--per-site compares inside the models, and --verify off compares nothing", "Leave one out.")
    choices = Choices(leftover, norm_affine, duplicate, patterns_of(exclude))
    check_tolerance("rtol", rtol)
    check_tolerance("atol", atol)
    check_options(runtimes, threads, min_time, device)
    if target.is_dir():  # which has no suffix either
        check_folder(os.fspath(target))
    form = output_format(target)
    check_asked(target, form, choices, options, given, opset=opset, external_data=external_data)
    check_renewal(target, form, renewal)
    source.check("convert")
    check_writable(target, force=force, source=model, external_data=external_data, may_be_rejected=True)
    if bench:
        require_device(device, "ONNX" if form == "onnx" else "PyTorch", runtimes or ())
    if form == "onnx":
        work = to_onnx(source, target, given, choices, tell, external_data=external_data, force=force, renewal=renewal)
    else:
        work = (to_program if form == "pt2" else to_state)(source, target, given, choices, tell, force=force)
    tell("writing", None)
    with work.staged() as written:
        after = work.read_back(written.path)
        report = replace(work.report, bytes_after=work.bytes_after(written.path))
        if verify != "off":
            report = verified(report, work.before, after, work.given, rtol, atol, tell, work.steps, verify, per_site)
        if asked and report.passed:
            report = measured(report, work.original or work.before, after, work.given, asked, tell, work.folded_only)
        if bench and report.passed:
            report = timed(report, work.before, after, work.given, options, tell)
        report = with_data_noted(judged(report, given), written.data)
        if picture:
            report = pictured(report, *work.shown(), tell)
        if not report.passed:
            return replace(report, rejected=written.reject())
        output_info = replace(FileInfo.of(written.path), path=str(target), format=form)
        written.publish()
    return replace(report, output=output_info)


def inspect(
    model: StrPath,
    *,
    arch: Arch | None = None,
    arch_args: Mapping[str, str] | None = None,
    inputs: Sequence[str | InputSpec] = (),
    input_data: StrPath | Data | None = None,
    dynamic: Sequence[str | DynamicDim] = (),
    mean: ChannelNumbers | None = None,
    std: ChannelNumbers | None = None,
    scale: ChannelNumbers | None = None,
    opset: int | None = None,
    seed: int = 0,
    trust_pickle: bool = False,
    max_bytes: int | str = MAX_BYTES,
    isolate: Limits | None = None,
    norm_affine: bool = False,
    duplicate: str = "auto",
    exclude: str | Sequence[str] = (),
    fail_on: Sequence[str] = (),
    picture: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Says of every BatchNorm whether it would fold, into what, or why not; writes nothing.

    The arguments are those of `convert`.
    """
    if isolate is not None:
        return isolated("inspect", locals())
    tell = progress or _silent
    given = read_given(
        inputs,
        input_data,
        dynamic,
        fail_on,
        command="inspect",
        seed=seed,
        mean=mean,
        std=std,
        scale=scale,
        max_bytes=max_bytes,
    )
    choices = Choices(norm_affine=norm_affine, duplicate=duplicate, exclude=patterns_of(exclude))
    source = Source(model, arch, arch_args, trust_pickle, opset, max_bytes)
    source.check("inspect")
    unfolded, given, report = open_model("inspect", source, given, tell)
    unfolded, report, steps = preprocessed(unfolded, report, given)
    tell("planning", None)
    from bnfold.frontends.onnx import fold_model
    from bnfold.loading.onnxfile import weight_bytes

    store = store_for(weight_bytes(unfolded), os.path.join(tempfile.gettempdir(), "a plan"))
    folded, plan = fold_model(unfolded, choices, store=store)
    report = with_copies_noted(report, plan)
    report = replace(report, plan=plan, notes=(*report.notes, *fate(steps, plan)))
    return judged(pictured(report, unfolded, folded, tell) if picture else report, given)


def verify(
    before: StrPath,
    after: StrPath,
    *,
    arch: Arch | None = None,
    arch_args: Mapping[str, str] | None = None,
    inputs: Sequence[str | InputSpec] = (),
    input_data: StrPath | Data | None = None,
    seed: int = 0,
    trust_pickle: bool = False,
    max_bytes: int | str = MAX_BYTES,
    isolate: Limits | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    per_site: bool = False,
    data: DataSource | None = None,
    metric: str | Callable[..., Any] | None = None,
    fail_on: Sequence[str] = (),
    picture: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Compares two model files, whoever made the second. Arguments as for `convert`; `arch` is for both."""
    if isolate is not None:
        return isolated("verify", locals())
    tell = progress or _silent
    given = read_given(inputs, input_data, fail_on=fail_on, command="verify", seed=seed, max_bytes=max_bytes)
    source = Source(before, arch, arch_args, trust_pickle, None, max_bytes)
    source.check("verify", after)
    asked = open_measurement(data, metric, given)
    (first, second), given, report = open_files("verify", source, after, given, tell)
    report = verified(report, first, second, given, rtol, atol, tell, per_site=per_site)
    if asked and report.verification is not None and report.verification.inputs:  # both take the same inputs
        report = measured(report, first, second, given, asked, tell)
    return judged(pictured(report, first, second, tell) if picture else report, given)


def drift(
    model: StrPath,
    data: DataSource,
    *,
    arch: Arch | None = None,
    arch_args: Mapping[str, str] | None = None,
    inputs: Sequence[str | InputSpec] = (),
    input_data: StrPath | Data | None = None,
    mean: ChannelNumbers | None = None,
    std: ChannelNumbers | None = None,
    scale: ChannelNumbers | None = None,
    opset: int | None = None,
    seed: int = 0,
    trust_pickle: bool = False,
    max_bytes: int | str = MAX_BYTES,
    isolate: Limits | None = None,
    fail_on: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Compares the statistics every BatchNorm stores with those of data; writes nothing.

    The arguments are those of `convert`; the data needs no labels.
    """
    if isolate is not None:
        return isolated("drift", locals())
    check_paths("drift", model)
    tell = progress or _silent
    given = read_given(
        inputs,
        input_data,
        (),
        fail_on,
        command="drift",
        seed=seed,
        mean=mean,
        std=std,
        scale=scale,
        max_bytes=max_bytes,
    )
    source = Source(model, arch, arch_args, trust_pickle, opset, max_bytes)
    source.check("drift")
    opened = open_data(data, given)
    unfolded, given, report = open_model("drift", source, given, tell)
    unfolded, report, _ = preprocessed(unfolded, report, given)
    return judged(drifted(report, unfolded, opened, tell), given)


def bench(
    before: StrPath,
    after: StrPath | None = None,
    *,
    arch: Arch | None = None,
    arch_args: Mapping[str, str] | None = None,
    inputs: Sequence[str | InputSpec] = (),
    input_data: StrPath | Data | None = None,
    seed: int = 0,
    trust_pickle: bool = False,
    max_bytes: int | str = MAX_BYTES,
    isolate: Limits | None = None,
    runtimes: Sequence[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    min_time: float = DEFAULT_MIN_TIME_S,
    fail_on: Sequence[str] = (),
    picture: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Times two model files against each other, or one against itself. Arguments as for `verify`."""
    if isolate is not None:
        return isolated("bench", locals())
    tell = progress or _silent
    given = read_given(inputs, input_data, fail_on=fail_on, command="bench", seed=seed, max_bytes=max_bytes)
    options = TimingOptions(runtimes, threads, min_time, device)
    check_options(runtimes, threads, min_time, device)
    source = Source(before, arch, arch_args, trust_pickle, None, max_bytes)
    source.check("bench", after)
    (first, *second), given, report = open_files("bench", source, after, given, tell)
    other = second[0] if second else None
    report = timed(report, first, other, given, options, tell)
    return judged(pictured(report, first, other, tell) if picture else report, given)


def default_output(model: StrPath) -> Path:
    """`models/resnet.pt` → `models/resnet.folded.onnx`."""
    path = Path(model)
    return path.parent / f"{path.stem or 'model'}.folded.onnx"


def _silent(stage: str, done: float | None) -> None:
    return None
