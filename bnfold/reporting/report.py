"""What a command found out, as data: the one value behind the text on the terminal and the JSON of `--json`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from bnfold.benchmark.latency import Timing
from bnfold.evaluation.accuracy import Accuracy
from bnfold.fragment import html_table
from bnfold.loading.digests import sha256_of
from bnfold.planning.plan import Plan
from bnfold.reporting.picture.picture import Picture
from bnfold.statistics.drift import Drift
from bnfold.statistics.recalibrate import Recalibration
from bnfold.verification.verify import Verdict
from bnfold.wording import inert, printable_lines, to_json

SCHEMA = 1

PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class FileInfo:
    """A file a report speaks of.

    Attributes:
        path: As the user wrote it.
        sha256: Of its bytes.
        format: `"onnx"`, `"state-dict"`, `"safetensors"`, `"module"`, `"torchscript"` or `"pt2"`.
    """

    path: str
    sha256: str
    format: str = "onnx"

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileInfo:
        """An ONNX file as it lies on the disk."""
        with open(path, "rb") as file:
            return cls(os.fspath(path), sha256_of(file))


@dataclass(frozen=True)
class Report:
    """Everything a command found out. What a command does not do is None.

    Attributes:
        command: `"convert"`, `"inspect"`, `"verify"`, `"bench"` or `"drift"`.
        source: The model that came in.
        output: The model that was written, or (verify, bench) the second model.
        plan: Every BatchNorm and what becomes of it.
        operators_before: Nodes by operator in the unfolded graph; None for a module, which has none.
        operators_after: Nodes by operator in the folded graph.
        bytes_before: Size of the unfolded model: of an ONNX file with its external data, of PyTorch the weights.
        bytes_after: The same of the folded model.
        verification: Whether both are the same function.
        benchmark: What they cost.
        accuracy: What they are worth on data.
        drift: How far the stored statistics are from those of data.
        recalibration: Which statistics were replaced.
        rejected: Where the folded model was left because a check did not pass.
        failures: The checks that did not pass, in words.
        conditions: The caller's conditions, as they were written.
        notes: What to know besides, one sentence each.
        picture: The graphs and weights of both models, where that was asked for.
        environment: Versions and machine.
    """

    command: str
    source: FileInfo
    output: FileInfo | None = None
    plan: Plan | None = None
    operators_before: Mapping[str, int] | None = field(default_factory=dict)
    operators_after: Mapping[str, int] | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    verification: Verdict | None = None
    benchmark: Timing | None = None
    accuracy: Accuracy | None = None
    drift: Drift | None = None
    recalibration: Recalibration | None = None
    rejected: str | None = None
    failures: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    picture: Picture | None = None
    environment: Mapping[str, Any] = field(default_factory=lambda: environment())

    @property
    def passed(self) -> bool:
        """Whether every check that ran passed."""
        return not self.failures and (self.verification is None or self.verification.passed)

    def counts(self) -> dict[str, int | None]:
        """The `counts` of the JSON; what the command does not determine is None."""
        planned = dict.fromkeys(("folded", "merged", "kept", "affines", "affines_folded"))
        before, after = self.operators_before, self.operators_after
        return {
            "batch_norms": None if before is None else before.get("BatchNormalization", 0),
            **(planned if self.plan is None else self.plan.to_dict()["counts"]),
            "nodes_before": None if before is None else sum(before.values()),
            "nodes_after": None if after is None else sum(after.values()),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as `--json` prints it (schema 1); what cannot be printed in names is replaced."""
        data: dict[str, Any] = inert(self._data())
        return data

    def _data(self) -> dict[str, Any]:
        source, output = self.source, self.output
        after = self.operators_after
        run: dict[str, Any] = {
            "schema": SCHEMA,
            "bnfold": version(),
            "command": self.command,
            "passed": self.passed,
            "failures": list(self.failures),
            "conditions": list(self.conditions),
            "source": {"path": source.path, "format": source.format, "sha256": source.sha256},
            "output": None if output is None else {"path": output.path, "sha256": output.sha256},
            "rejected": self.rejected,
            "counts": self.counts(),
            "sites": [] if self.plan is None else self.plan.to_dict()["sites"],
            "affines": [] if self.plan is None else [site.to_dict() for site in self.plan.affines],
            "operators": {
                "before": None if self.operators_before is None else dict(self.operators_before),
                "after": None if after is None else dict(after),
            },
            "verification": None if self.verification is None else self.verification.to_dict(),
            "benchmark": None if self.benchmark is None else self.benchmark.to_dict(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
            "drift": None if self.drift is None else self.drift.to_dict(),
            "recalibration": None if self.recalibration is None else self.recalibration.to_dict(),
            "notes": list(self.notes),
            "environment": dict(self.environment),
        }
        return run if self.picture is None else {**run, "picture": self.picture.to_dict()}

    def to_json(self) -> str:
        """The same as text: indented, with the picture, which is long, on a line of its own at the end."""
        return run_text(self.to_dict())

    def __str__(self) -> str:
        """The report in a few lines: what folds and what stays, the checks, and where the result lies."""
        drift = self.drift and f"{self.drift.drifted} of {len(self.drift.layers)} BatchNorms drifted"
        parts = [self.plan, self.verification, self.benchmark, self.accuracy, drift]
        lines = [str(part) for part in parts if part is not None]
        lines += [f"check failed: {failure}" for failure in self.failures]
        if self.command == "convert" and self.output is not None:
            lines.append(f"Written to {self.output.path}")
        if self.rejected is not None:
            lines.append(f"Not written; left as {self.rejected}")
        return printable_lines("\n".join(lines) or f"{self.command} of {self.source.path}")

    def _repr_html_(self) -> str:
        """The report in a notebook: its verdict, the numbers behind it, and what stays."""
        from bnfold.reporting.page.facts import rows, tiles, verdict

        run = self.to_dict()
        found = verdict(run)
        numbers = [(tile.title, tile.before, f"{tile.value} {tile.note}".strip()) for tile in tiles(run)]
        kept = [(row.name, row.code, row.text) for row in rows(run) if row.status == "kept"]
        parts = [html_table(found.sentence, ("", "before", "after"), numbers, "; ".join(found.failures))]
        parts += [html_table("Kept", ("BatchNorm", "reason", ""), kept)] if kept else []
        return f"<div>{''.join(parts)}</div>"


def run_text(run: dict[str, Any]) -> str:
    """A run as `--json` writes it."""
    text = to_json({key: value for key, value in run.items() if key != "picture"})
    if "picture" in run:
        text = f'{text[:-3]},\n  "picture": {to_json(run["picture"], compact=True)[:-1]}\n}}\n'
    return text


def version() -> str:
    """The version of bnfold; `"unknown"` when it runs from a source tree that is not installed."""
    try:
        return metadata.version("bnfold")
    except metadata.PackageNotFoundError:
        return "unknown"


def environment() -> dict[str, Any]:
    """What a number in the report depends on besides the model; imports none of the packages it names."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "packages": packages,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
