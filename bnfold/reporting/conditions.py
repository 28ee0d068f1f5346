"""`--fail-on METRIC OP NUMBER`: when a report is not good enough.

A metric with several values (one per output, one per runtime) fails when any of them meets the condition. One that was
not measured fails as well: a gate that passes because nothing was looked at is no gate.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bnfold.errors import UsageError
from bnfold.reporting.report import Report
from bnfold.wording import guess_among

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}

COUNTS = ("batch_norms", "folded", "merged", "kept", "affines", "affines_folded", "nodes_after", "bytes_after")

METRICS = (
    *COUNTS,
    "error.max_abs",
    "error.rel",
    "error.ratio",
    "top1.before",
    "top1.after",
    "top1.delta",
    "top5.before",
    "top5.after",
    "top5.delta",
    "accuracy.before",
    "accuracy.after",
    "accuracy.delta",
    "accuracy.low",
    "accuracy.p",
    "accuracy.agreement",
    "accuracy.changed",
    "accuracy.lost",
    "accuracy.gained",
    "drift.worst",
    "drift.channel",
    "drift.drifted",
    "speedup.median",
    "speedup.low",
    "speedup.high",
)

MEASURED_BY = {
    **dict.fromkeys(COUNTS[:6], " (convert and inspect do)"),
    **dict.fromkeys(COUNTS[6:], " (convert does)"),
    "error": " (verify does, and convert with --verify full)",
    "drift": " (bnfold drift does)",
    "speedup": " (bench of two models does, and convert --bench)",
    "accuracy": " (--data with --metric does)",
    "top1": " (--data with --metric top1 does)",
    "top5": " (--data with --metric top5 does)",
}

SIZE, SCORES = COUNTS[6:], ("accuracy", "top1", "top5")
MEASURES = {  # what a command can measure at all, by the first word of the metric
    "convert": (*COUNTS, "error", *SCORES, "speedup"),
    "inspect": COUNTS[:6],
    "verify": ("batch_norms", *SIZE, "error", *SCORES),
    "bench": ("batch_norms", *SIZE, "speedup"),
    "drift": ("batch_norms", "drift"),
}

EXAMPLE = "Write it like kept>0, error.rel>1e-5 or speedup.low<0.98."


@dataclass(frozen=True)
class Condition:
    """One `--fail-on`.

    Attributes:
        text: As the user wrote it.
        metric: One of `METRICS`.
        sign: One of `OPERATORS`.
        bound: The number.
    """

    text: str
    metric: str
    sign: str
    bound: float

    def failure(self, report: Report) -> str:
        """Why the report fails the condition, in words; empty when it does not."""
        values = measured(report, self.metric)
        if not values:
            how = MEASURED_BY.get(self.metric.partition(".")[0], "")
            return f"--fail-on {self.text}: {self.metric} was not measured{how}"
        for value in values:
            if OPERATORS[self.sign](value, self.bound):
                return f"--fail-on {self.text}: {self.metric} is {value:.6g}"
        return ""


def parse_condition(text: str) -> Condition:
    """Reads `METRIC OP NUMBER`, e.g. `error.rel>1e-5`.

    Raises:
        UsageError: It does not read, or there is no such metric.
    """
    match = re.fullmatch(r"\s*([a-z0-9_.]+)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*", text)
    if match is None:
        bare = text.strip()
        if bare in METRICS:  # a file called like the number is left where the shell ran it
            raise UsageError(
                f"--fail-on {text!r} is a metric without a bound",
                f"Quote it, as the shell takes > and < for redirections: --fail-on '{bare}>0'",
            )
        raise UsageError(f"--fail-on {text!r} is not METRIC>NUMBER", EXAMPLE)
    metric, sign, number = match.groups()
    if metric not in METRICS:
        raise UsageError(
            f"--fail-on {text!r}: no metric is called {metric!r}",
            guess_among(metric, METRICS),
        )
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise UsageError(f"--fail-on {text!r}: {number!r} is not a number", EXAMPLE)
    return Condition(text, metric, sign, bound)


def check_measurable(conditions: Sequence[Condition], command: str) -> None:
    """Refuses what a command never measures, whatever else it is asked for.

    Raises:
        UsageError: A condition is on such a metric.
    """
    for condition in conditions:
        group = condition.metric.partition(".")[0]
        if group not in MEASURES[command]:
            others = [name for name, groups in MEASURES.items() if group in groups]
            raise UsageError(
                f"--fail-on {condition.text}: {command} does not measure {condition.metric}",
                f"Measured by: {', '.join(f'bnfold {name}' for name in others)}.",
            )


def failures(conditions: Sequence[Condition], report: Report) -> tuple[str, ...]:
    """What the report fails, one sentence per condition."""
    return tuple(filter(None, (condition.failure(report) for condition in conditions)))


def measured(report: Report, metric: str) -> list[float]:
    """The values of a metric in a report; none when it was not measured, in part or at all.

    A value that is not a number counts as not measured: no condition would hold for it, and so none would fail.
    """
    values: list[float | None] = []
    group, _, which = metric.partition(".")
    if metric in COUNTS:
        values = [report.counts()[metric]]
    elif group == "error" and report.verification is not None:
        values = [getattr(output, which) for output in report.verification.outputs]
    elif report.accuracy is not None and group in ("accuracy", report.accuracy.metric):
        values = [getattr(report.accuracy, which)]
    elif group == "drift" and report.drift is not None:
        values = [getattr(report.drift, which)]
    elif group == "speedup" and report.benchmark is not None:
        values = [row.speedup if which == "median" else getattr(row, which) for row in report.benchmark.rows]
    found = [value for value in values if value is not None and not math.isnan(value)]
    return found if len(found) == len(values) else []
