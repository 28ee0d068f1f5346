"""The steps of the line, one function each: it takes the report so far and returns it with one thing more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.benchmark.bench import bench as bench_models
from bnfold.errors import UnsupportedError
from bnfold.pipeline.asked import Given, Progress, TimingOptions
from bnfold.pipeline.preprocess import Step, insert, raw
from bnfold.planning.plan import Plan
from bnfold.reporting.conditions import failures
from bnfold.reporting.report import Report
from bnfold.running.runners import count_operators
from bnfold.verification.verify import verify as verify_models

if TYPE_CHECKING:
    import onnx_ir

CONVOLUTIONS = {"Conv", "ConvTranspose"}


def preprocessed(
    unfolded: onnx_ir.Model, report: Report, given: Given
) -> tuple[onnx_ir.Model, Report, tuple[Step, ...]]:
    """The model that is to be folded with its preprocessing in front, the report on it, and what was put there."""
    if not given.preprocessing:
        return unfolded, report, ()
    model, steps = insert(unfolded, given.preprocessing)
    return model, replace(report, operators_before=count_operators(model)), steps


def verified(
    report: Report,
    before: object,
    after: object,
    given: Given,
    rtol: float | None,
    atol: float | None,
    tell: Progress,
    steps: Sequence[Step] = (),
    level: str = "full",
    per_site: bool = False,
) -> Report:
    """The report with the verdict on both models, which begin with these steps of preprocessing."""
    tell("verifying", None)
    verdict = verify_models(
        before,
        after,
        given.data,
        level=level,
        rtol=rtol,
        atol=atol,
        seed=given.seed,
        specs=given.specs,
        drawn=lambda feeds: raw(steps, feeds),
        per_site=per_site,
        progress=lambda done: tell("verifying", done),
    )
    return replace(report, verification=verdict)


def timed(
    report: Report, before: object, after: object | None, given: Given, options: TimingOptions, tell: Progress
) -> Report:
    """The report with their latencies."""
    timing = bench_models(
        before,
        after,
        given.data,
        runtimes=options.runtimes,
        device=options.device,
        threads=options.threads,
        min_time=options.min_time,
        seed=given.seed,
        specs=given.specs,
        progress=lambda done: tell("timing", done),
    )
    return replace(report, benchmark=timing)


def pictured(report: Report, before: object, after: object | None, tell: Progress) -> Report:
    """The report with the graphs and weights of both models, or with a note on why it shows none."""
    tell("drawing", None)
    from bnfold.reporting.picture.drawn import drawn

    try:
        return replace(report, picture=drawn(before, after, report.plan))
    except UnsupportedError as error:
        return replace(report, notes=(*report.notes, f"no graph is shown: {error.what}"))


def judged(report: Report, given: Given) -> Report:
    """The report with the caller's conditions and what it fails of them."""
    texts = tuple(condition.text for condition in given.conditions)
    return replace(report, failures=failures(given.conditions, report), conditions=texts)


def with_copies_noted(report: Report, plan: Plan) -> Report:
    """The report with a note on the copies of shared weights, if there are any."""
    operators = {name for site in plan.sites for name in site.copies}
    if not operators:
        return report
    who = "1 operator got a weight" if len(operators) == 1 else f"{len(operators)} operators got weights"
    size = f"{plan.growth / 1e6:.1f} MB" if plan.growth >= 1e5 else f"{plan.growth:,} bytes"
    note = f"{who} of their own instead of a shared one, {size} more in all (--duplicate never: none)"
    return replace(
        report, notes=(*report.notes, note.replace("of their own", "of its own") if len(operators) == 1 else note)
    )


def with_nothing_noted(report: Report, plan: Plan, *, as_onnx: bool = False, unchanged: bool = True) -> Report:
    """The report with a note, where no BatchNorm was there to fold, on what the file is that is written.

    Args:
        report: The report so far.
        plan: The fate of everything.
        as_onnx: Whether it was something else, and becomes ONNX.
        unchanged: Whether nothing else was done to the model.
    """
    if plan.batch_norms or not unchanged or any(site.status != "kept" for site in plan.affines):
        return report
    said = f"the file written is the model as it came{', as ONNX' if as_onnx else ''}"
    return replace(report, notes=(*report.notes, said))


def with_exporter_noted(report: Report, model: onnx_ir.Model) -> Report:
    """The report with a note on where BatchNorms may be, in a file of torch's that has convolutions and none."""
    found = report.operators_before or {}
    if model.producer_name != "pytorch" or "BatchNormalization" in found or not CONVOLUTIONS & set(found):
        return report
    said = "torch.onnx.export, which wrote this file, folds BatchNorms behind convolutions by default"
    return replace(report, notes=(*report.notes, f"{said}: there may have been some"))


def with_data_noted(report: Report, data: str) -> Report:
    """The report with a note on the file that holds the weights, if there is one."""
    if not data:
        return report
    return replace(report, notes=(*report.notes, f"the weights are in a file of their own beside the model, {data}"))
