"""How much faster is one model than another, and is that more than noise?

Both models are loaded once, in one process. A round times three sessions in random order (`timing`): before, before
again (the control: a second session of the same bytes, or a copy of the same network) and after. Each round yields two
ratios

    speed-up = before / after          control = before / before again

of which the median over the rounds is reported, with a 95 % interval, and what may be claimed of it (`speedup`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.cuda import SPIN_UP_S, event_seconds, gpu_name
from bnfold.devices import check_device, require_device
from bnfold.errors import UsageError
from bnfold.feeds import InputSpec, make_feeds
from bnfold.pairing import Renamed, go_by_place
from bnfold.runners import (
    ONNX_RUNTIMES,
    RUNTIMES,
    TORCH_RUNTIMES,
    Runner,
    batch_norms_after_load,
    check_runtime,
    count_operators,
    wrong_runtime,
)
from bnfold.speedup import claim, median_interval
from bnfold.subjects import OnnxSubject, Subject, TorchSubject, given_feeds, open_subjects
from bnfold.timing import time_rounds

DEFAULT_MIN_TIME_S = 2.0


@dataclass(frozen=True)
class Row:
    """One runtime's result. Without a second model, `after_ms`, `speedup`, `low` and `high` are None.

    Attributes:
        runtime: `"ort"`, `"ort-as-written"`, `"torch"` or `"torch-compile"`.
        threads: Threads within an operator, of the CPU.
        before_ms: Median latency of the model before, in milliseconds.
        after_ms: The same of the model after.
        speedup: Median of before / after over the rounds.
        low: Lower end of its 95 % interval.
        high: Upper end.
        control_low: Lower end of the interval of before / before.
        control_high: Upper end.
        verdict: What may be claimed, in words.
        device: Where it ran: `"cpu"` or `"cuda"`.
        before_p90_ms: What 90 % of the timings of the model before stay below, in milliseconds.
        before_p99_ms: What 99 % do.
        after_p90_ms: The same of the model after.
        after_p99_ms: The same of the model after.
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
    before_p90_ms: float | None = None
    before_p99_ms: float | None = None
    after_p90_ms: float | None = None
    after_p99_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in `--json`."""
        return dict(vars(self))


@dataclass(frozen=True)
class Timing:
    """What a benchmark found: one row per runtime.

    Attributes:
        rows: The rows.
        batch: Elements of the first axis of the first input.
        gpu: What the device is called; None for the CPU.
    """

    rows: tuple[Row, ...]
    batch: int
    gpu: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The benchmark as it stands in `--json`."""
        return {"batch": self.batch, "gpu": self.gpu, "rows": [row.to_dict() for row in self.rows]}


def bench(
    before: object,
    after: object | None = None,
    inputs: Any = None,
    *,
    runtimes: Sequence[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    min_time: float = DEFAULT_MIN_TIME_S,
    seed: int = 0,
    specs: Sequence[InputSpec] = (),
    progress: Callable[[float], None] | None = None,
) -> Timing:
    """Times two models against each other, or one against itself.

    Args:
        before: A `torch.nn.Module`, `torch.export.ExportedProgram`, `onnx.ModelProto` or `onnx_ir.Model`, or the path
            of a file that holds one. It is not changed.
        after: The same, ONNX if `before` is and PyTorch if `before` is; None times `before` alone, with its control.
        inputs: Arrays or tensors to run on, as `verify` takes them; None draws them, at the batch of `specs`, else 1.
        runtimes: Of `RUNTIMES`: `ort` and `ort-as-written` for ONNX, `torch` and `torch-compile` for PyTorch. None
            takes both of ONNX, or `torch`.
        device: `"cpu"` or `"cuda"`, where copies of both models are put for it; None is where the model before is.
        threads: Threads within an operator; None takes every core this process may use.
        min_time: Seconds to measure each runtime for.
        seed: Of the drawn inputs, the order of the sessions and the bootstrap.
        specs: Shapes and dtypes of the drawn inputs, where the model leaves them open.
        progress: Called with the part done, 0 to 1.

    Raises:
        UsageError: A runtime is unknown or does not run such models, or a number is out of range.
        UnsupportedError: A model cannot be run here, or not on that device.
    """
    check_options(runtimes, threads, min_time, device)
    cores = threads or _usable_cores()
    batch = next((spec.shape[0] for spec in specs if spec.shape), 1)
    rows: list[Row] = []
    with ExitStack() as stack:
        models = (before,) if after is None else (before, after)
        subjects = open_subjects(models, stack, inputs, specs, seed)
        named = check_runtimes(subjects, runtimes)
        place = device or subjects[0].device
        require_device(place, subjects[0].kind)
        subjects = tuple(subject.on(place) for subject in subjects)
        given = None if inputs is None else given_feeds(subjects[0], inputs)
        feeds = make_feeds(subjects[0].declared, batch=batch, seed=seed, specs=specs, data=given)
        for index, runtime in enumerate(named):

            def part(done: float, start: int = index) -> None:
                if progress:
                    progress((start + done) / len(named))

            with ExitStack() as session:
                calls = [runner.prepared(feeds) for runner in _sessions(subjects, runtime, cores, session)]
                times = time_rounds(calls, min_time=min_time, seed=seed, progress=part, **_clock(subjects[0], session))
            aside = _runtime_folds(subjects[0]) if runtime == "ort" and after is not None else ""
            rows.append(_row(runtime, cores, times, seed, aside, place.partition(":")[0]))
        gpu = None if place == "cpu" else gpu_name(place)
    first = next(iter(feeds.values()), np.zeros(0))
    return Timing(tuple(rows), batch=first.shape[0] if first.ndim else 1, gpu=gpu)


def check_runtimes(subjects: Sequence[Subject], runtimes: Sequence[str] | None) -> tuple[str, ...]:
    """The runtimes to time models in: those named, else what is usual for them.

    Raises:
        UsageError: One of them does not run such models, or the models have no runtime in common.
    """
    kinds = list(dict.fromkeys(subject.kind for subject in subjects))
    if len(kinds) > 1:
        raise UsageError(
            f"the model before is {kinds[0]} and the model after {kinds[1]}: no runtime runs both",
            "Compare two of one kind: export the PyTorch model to ONNX first (torch.onnx.export).",
        )
    [kind] = kinds
    if runtimes is None:
        return usual_runtimes(kind)
    for runtime in runtimes:
        check_runtime(runtime)
        if runtime not in subjects[0].runtimes:
            raise wrong_runtime(runtime, kind)
    return tuple(dict.fromkeys(runtimes))


def usual_runtimes(kind: str) -> tuple[str, ...]:
    """Where a kind of model is timed if nobody says: both ways of onnxruntime, or torch as it stands."""
    return ONNX_RUNTIMES if kind == "ONNX" else TORCH_RUNTIMES[:1]


def check_options(
    runtimes: Sequence[str] | None, threads: int | None, min_time: float, device: str | None = None
) -> None:
    """Refuses what cannot be measured, before any work.

    Raises:
        UsageError: A runtime or a device is unknown, or a number out of range.
    """
    check_device(device)
    if runtimes is not None and not runtimes:
        raise UsageError("no runtime was named", f"There are: {', '.join(RUNTIMES)}.")
    for runtime in runtimes or ():
        check_runtime(runtime)
    if not (min_time > 0 and math.isfinite(min_time)):
        raise UsageError(f"the time to measure must be positive, not {min_time:g} s", "Pass --min-time 1, for example.")
    if threads is not None and threads < 1:
        raise UsageError(f"the number of threads must be at least 1, not {threads}", "Pass --threads 1, for example.")


def _sessions(subjects: Sequence[Subject], runtime: str, threads: int, stack: ExitStack) -> list[Runner]:
    """The model before, a second session of it, and the model after by the names of the model before."""
    before, *after = subjects
    runners: list[Runner] = [before.runner(runtime, threads=threads), before.again().runner(runtime, threads=threads)]
    for other in after:
        runner: Runner = other.runner(runtime, threads=threads)
        if len(runner.inputs) != len(runners[0].inputs):
            raise UsageError(
                f"the inputs are {list(runners[0].inputs)} before and {list(runner.inputs)} after",
                "Compare models that take the same inputs.",
            )
        runners.append(Renamed(runner, runners[0]) if go_by_place(before, other) else runner)
    if isinstance(before, TorchSubject):
        from bnfold.torchrunner import torch_threads, unchanged

        stack.enter_context(torch_threads(threads))
        for subject in subjects:
            assert isinstance(subject, TorchSubject)
            stack.enter_context(unchanged(subject.network.module))
    return runners


def _clock(subject: Subject, session: ExitStack) -> dict[str, Any]:
    """How its calls are timed: those of onnxruntime, and of PyTorch on the CPU, return when their work is done."""
    if not isinstance(subject, TorchSubject) or subject.device == "cpu":
        return {}
    import torch

    session.enter_context(torch.cuda.device(subject.device))
    return {"stopwatch": event_seconds, "spin_up": SPIN_UP_S}


def _row(
    runtime: str, threads: int, times: NDArray[np.float64], seed: int, aside: str = "", device: str = "cpu"
) -> Row:
    """A row from the seconds of each round, float64[rounds, 2 or 3]."""
    before_ms, before_p90, before_p99 = (float(q) * 1e3 for q in np.quantile(times[:, 0], [0.5, 0.9, 0.99]))
    tails = {"before_p90_ms": before_p90, "before_p99_ms": before_p99}
    _, control_low, control_high = median_interval(times[:, 0] / times[:, 1], seed)
    if times.shape[1] == 2:
        verdict = f"a model against itself differs by {control_low:.3f} to {control_high:.3f} on this machine"
        return Row(
            runtime, threads, before_ms, None, None, None, None, control_low, control_high, verdict, device, **tails
        )
    after_ms, after_p90, after_p99 = (float(q) * 1e3 for q in np.quantile(times[:, 2], [0.5, 0.9, 0.99]))
    tails |= {"after_p90_ms": after_p90, "after_p99_ms": after_p99}
    speedup, low, high = median_interval(times[:, 0] / times[:, 2], seed)
    verdict = claim(speedup, low, high, control_low, control_high) + aside
    return Row(
        runtime,
        threads,
        before_ms,
        after_ms,
        speedup,
        low,
        high,
        control_low,
        control_high,
        verdict,
        device,
        **tails,
    )


def _runtime_folds(before: Subject) -> str:
    """What the runtime folds of its own accord, as an addition to the verdict; empty where it is nothing."""
    if not isinstance(before, OnnxSubject):
        return ""
    found = count_operators(before.model).get("BatchNormalization", 0)
    left = batch_norms_after_load(before.file)
    if left is None or left >= found:
        return ""
    if left:
        return f" (onnxruntime folds {found - left} of the {found} BatchNorms itself)"
    which = "the one BatchNorm" if found == 1 else f"all {found} BatchNorms"
    return f" (no gain is expected: onnxruntime folds {which} itself)"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
