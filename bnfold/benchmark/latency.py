"""What a benchmark found, as data: one row per runtime, and how a row comes from the seconds of the rounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.benchmark.speedup import claim, noise, ratio_interval
from bnfold.benchmark.startup import Startup, typical
from bnfold.fragment import timing_html


@dataclass(frozen=True)
class Side:
    """One model in one runtime, besides its median.

    Attributes:
        p90_ms: What 90 % of the timings stay below, in milliseconds.
        p99_ms: What 99 % do.
        load_ms: Until a session is there, from a file or from memory; None for PyTorch, where there is none to make.
        first_ms: The first run; with `torch-compile`, the compilation.
        peak_bytes: The largest amount of memory that both take; None where the system does not tell.
    """

    p90_ms: float
    p99_ms: float
    load_ms: float | None
    first_ms: float
    peak_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """The side as it stands in `--json`."""
        return dict(vars(self))


@dataclass(frozen=True)
class Row:
    """One runtime's result. Without a second model, `after_ms`, `speedup`, `low`, `high` and `after` are None.

    Attributes:
        runtime: `"ort"`, `"ort-as-written"`, `"torch"`, `"torch-compile"` or `"openvino"`.
        threads: Threads within an operator, of the CPU.
        before_ms: Median latency of the model before, in milliseconds.
        after_ms: The same of the model after.
        speedup: before / after, the middle over the sessions of the medians over their rounds.
        low: Lower end of its 95 % interval.
        high: Upper end.
        control_low: Lower end of the interval of before / before.
        control_high: Upper end.
        verdict: What may be claimed, in words.
        device: Where it ran: `"cpu"` or `"cuda"`.
        before: What else was measured of the model before.
        after: The same of the model after.
        sessions: How many times each model was started.
        noise: What shows that the machine was busy meanwhile, in words.
    """

    runtime: str
    threads: int
    before_ms: float
    after_ms: float | None
    speedup: float | None
    low: float | None
    high: float | None
    control_low: float
    control_high: float
    verdict: str
    device: str = "cpu"
    before: Side | None = None
    after: Side | None = None
    sessions: int = 1
    noise: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in `--json`."""
        sides = {key: side and side.to_dict() for key, side in (("before", self.before), ("after", self.after))}
        return {**vars(self), **sides, "noise": list(self.noise)}


@dataclass(frozen=True)
class Timing:
    """What a benchmark found: one row per runtime.

    Attributes:
        rows: The rows.
        batch: Elements of the first axis of the first input.
        gpu: What the device is called; None for the CPU.
        bytes_before: Size of the model before: an ONNX file with its external data, or the weights of a network.
        bytes_after: The same of the model after.
        load_average: Processes that wanted to run on this machine when the benchmark began, over the minute before;
            None where the system does not tell.
    """

    rows: tuple[Row, ...]
    batch: int
    gpu: str | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    load_average: float | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the numbers may not be what a quiet machine gives, one sentence each."""
        cores = os.cpu_count() or 1
        noisy = {row.runtime: "; ".join(row.noise) for row in self.rows if row.noise}
        found = [f"{runtime}: the machine is noisy ({said})" for runtime, said in noisy.items()]
        if len(noisy) > 1:
            found = [f"the machine is noisy ({'; '.join(f'{runtime}: {said}' for runtime, said in noisy.items())})"]
        if self.load_average is not None and self.load_average > cores:
            noun = "core" if cores == 1 else "cores"
            found.append(f"the machine was busy before: a load average of {self.load_average:.1f} on {cores} {noun}")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """The benchmark as it stands in `--json`."""
        return {**vars(self), "rows": [row.to_dict() for row in self.rows], "warnings": list(self.warnings)}

    def __str__(self) -> str:
        """The benchmark, one line per runtime."""
        lines = []
        for row in self.rows:
            after = "" if row.after_ms is None else f" before, {row.after_ms:.3g} ms after"
            lines.append(f"{row.runtime}, batch {self.batch}: {row.before_ms:.3g} ms{after}: {row.verdict}")
        return "\n".join((*lines, *self.warnings))

    def _repr_html_(self) -> str:
        """The benchmark in a notebook."""
        return timing_html(self.to_dict())


def row_of(
    runtime: str,
    threads: int,
    device: str,
    times: Sequence[NDArray[np.float64]],
    startups: Sequence[Sequence[Startup]],
    seed: int,
    aside: str = "",
) -> Row:
    """A row from what was measured.

    Args:
        runtime: Where.
        threads: With how many.
        device: On what.
        times: For each time that the models were started, float64[rounds, 2 or 3], seconds: before, before again, and
            after.
        startups: Of each of these models, for each time.
        seed: Of the bootstrap.
        aside: What is added to the verdict.
    """
    every = np.concatenate(times)
    before_ms, before = _side(every[:, 0], typical([*startups[0], *startups[1]]))
    _, control_low, control_high = ratio_interval([each[:, 0] / each[:, 1] for each in times], seed)
    found: dict[str, Any] = {
        "runtime": runtime,
        "threads": threads,
        "device": device,
        "before_ms": before_ms,
        "before": before,
        "control_low": control_low,
        "control_high": control_high,
        "sessions": len(times),
        "noise": noise(every[:, :2], control_low, control_high),
    }
    if len(startups) == 2:
        verdict = f"a model against itself differs by {control_low:.3f} to {control_high:.3f} on this machine"
        return Row(**found, after_ms=None, speedup=None, low=None, high=None, verdict=verdict)
    after_ms, after = _side(every[:, 2], typical(startups[2]))
    speedup, low, high = ratio_interval([each[:, 0] / each[:, 2] for each in times], seed)
    verdict = claim(speedup, low, high, control_low, control_high) + aside
    return Row(**found, after_ms=after_ms, after=after, speedup=speedup, low=low, high=high, verdict=verdict)


def _side(seconds: NDArray[np.float64], startup: Startup) -> tuple[float, Side]:
    middle, p90, p99 = (1e3 * float(q) for q in np.quantile(seconds, [0.5, 0.9, 0.99]))
    return middle, Side(p90, p99, startup.load_ms, startup.first_ms, startup.peak_bytes)
