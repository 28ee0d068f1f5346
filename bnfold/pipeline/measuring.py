"""The steps of the line that need data: opened before the work begins, read when there are models to measure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.data.batches import Dataset
from bnfold.data.datasets import open_dataset
from bnfold.errors import UsageError
from bnfold.evaluation.accuracy import LABELS_MISSING, accuracy
from bnfold.evaluation.metrics import Metric, read_metric
from bnfold.pipeline.asked import Given, Progress
from bnfold.reporting.report import Report
from bnfold.statistics.drift import drift
from bnfold.statistics.recalibrate import recalibrate
from bnfold.wording import listed

if TYPE_CHECKING:
    import onnx_ir

DataSource = str | os.PathLike[str] | Iterable[Any] | Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class Measurement:
    """What to measure, and on what."""

    data: Dataset
    metric: Metric


def open_data(data: DataSource, given: Given, flag: str = "--data") -> Dataset:
    """A data set for models that begin with the caller's preprocessing: with `--scale`, images keep their 0 to 255."""
    return open_dataset(data, flag, raw=bool(given.preprocessing.scale))  # type: ignore[arg-type]


def open_measurement(
    data: DataSource | None, metric: str | Callable[..., Any] | None, given: Given
) -> Measurement | None:
    """What `--data` and `--metric` ask for; None where they ask for nothing.

    Raises:
        UsageError: There is no such metric, nothing to measure it on, or no labels.
        UnreadableError: The data cannot be read.
    """
    if data is None:
        if metric is not None:
            raise UsageError(f"--metric {metric} was given, and no data to measure it on", "Pass --data as well.")
        return None
    opened = Measurement(open_data(data, given), read_metric("top1" if metric is None else metric))
    if opened.data.labelled is False:
        arrays = getattr(opened.data, "arrays", ())
        hint = f"Call the inputs x and the labels y; it has {listed(arrays)}." if arrays else LABELS_MISSING
        raise UsageError(f"{opened.data.name} has no labels, which a metric needs", hint)
    return opened


def measured(
    report: Report,
    before: object,
    after: object,
    given: Given,
    asked: Measurement,
    tell: Progress,
    folded_only: object | None = None,
) -> Report:
    """The report with what both models are worth on the data."""
    found = accuracy(
        before,
        after,
        asked.data,
        asked.metric,
        folded_only=folded_only,
        seed=given.seed,
        specs=given.specs,
        progress=lambda done: tell("measuring", done),
    )
    return replace(report, accuracy=found)


def drifted(report: Report, model: onnx_ir.Model, data: Dataset, tell: Progress) -> Report:
    """The report with how far the stored statistics are from those of the data."""
    found = drift(model, data, progress=lambda done: tell("measuring", done))
    return replace(report, drift=found, notes=(*report.notes, *found.notes))


def recalibrated(report: Report, model: onnx_ir.Model, data: Dataset, tell: Progress) -> tuple[onnx_ir.Model, Report]:
    """The model with the data's statistics, and the report on it."""
    renewed, found = recalibrate(model, data, progress=lambda done: tell("recalibrating", done))
    return renewed, replace(report, recalibration=found, notes=(*report.notes, *found.notes))


def check_renewal(target: Path, form: str, data: Dataset | None) -> None:
    """Refuses `--recalibrate` for outputs that cannot have it.

    Raises:
        UsageError: The output is not ONNX.
    """
    if data is not None and form != "onnx":
        raise UsageError(
            f"--recalibrate {data.name} was given, which is for ONNX, and {target} is not",
            "Drop it, or give the output the suffix .onnx.",
        )
