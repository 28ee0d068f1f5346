"""How much faster is one model than another, and is that more than noise?

Both models are loaded once, in one process. A round times three sessions in random order: before, before again (the
control: a second session of the same bytes, or a copy of the same network) and after. What the machine does meanwhile
(frequency, neighbours, caches) then hits all three alike, and each round yields two ratios

    speed-up = before / after          control = before / before again

of which the median over the rounds is reported, with a 95 % interval from a moving-block bootstrap of the rounds
(Künsch 1989: neighbouring rounds are alike, so whole runs of them are drawn). A gain is claimed only where the interval
of the speed-up excludes 1 *and* lies outside the control's; the control's own distance from 1 is what this machine
makes of no change at all.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import UsageError
from bnfold.feeds import InputSpec, make_feeds
from bnfold.pairing import Renamed, go_by_place
from bnfold.quiet import quiet
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
from bnfold.subjects import OnnxSubject, Subject, TorchSubject, given_feeds, open_subjects

DEFAULT_MIN_TIME_S = 2.0

MIN_ROUNDS = 10
MAX_ROUNDS = 5000
BLOCK_S = 0.001  # a single timing lasts at least this long, by repeating the inference
RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One runtime's result. Without a second model, `after_ms`, `speedup`, `low` and `high` are None.

    Attributes:
        runtime: `"ort"`, `"ort-as-written"`, `"torch"` or `"torch-compile"`.
        threads: Threads within an operator.
        before_ms: Median latency of the model before, in milliseconds.
        after_ms: The same of the model after.
        speedup: Median of before / after over the rounds.
        low: Lower end of its 95 % interval.
        high: Upper end.
        control_low: Lower end of the interval of before / before.
        control_high: Upper end.
        verdict: What may be claimed, in words.
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

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in `--json`."""
        return dict(vars(self))


@dataclass(frozen=True)
class Timing:
    """What a benchmark found: one row per runtime.

    Attributes:
        rows: The rows.
        batch: Elements of the first axis of the first input.
    """

    rows: tuple[Row, ...]
    batch: int

    def to_dict(self) -> dict[str, Any]:
        """The benchmark as it stands in `--json`."""
        return {"batch": self.batch, "rows": [row.to_dict() for row in self.rows]}


def bench(
    before: object,
    after: object | None = None,
    inputs: Any = None,
    *,
    runtimes: Sequence[str] | None = None,
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
        threads: Threads within an operator; None takes every core this process may use.
        min_time: Seconds to measure each runtime for.
        seed: Of the drawn inputs, the order of the sessions and the bootstrap.
        specs: Shapes and dtypes of the drawn inputs, where the model leaves them open.
        progress: Called with the part done, 0 to 1.

    Raises:
        UsageError: A runtime is unknown or does not run such models, or a number is out of range.
        UnsupportedError: A model cannot be run here.
    """
    check_options(runtimes, threads, min_time)
    cores = threads or _usable_cores()
    batch = next((spec.shape[0] for spec in specs if spec.shape), 1)
    rows: list[Row] = []
    with ExitStack() as stack:
        models = (before,) if after is None else (before, after)
        subjects = open_subjects(models, stack, inputs, specs, seed)
        named = check_runtimes(subjects, runtimes)
        given = None if inputs is None else given_feeds(subjects[0], inputs)
        feeds = make_feeds(subjects[0].declared, batch=batch, seed=seed, specs=specs, data=given)
        for index, runtime in enumerate(named):

            def part(done: float, start: int = index) -> None:
                if progress:
                    progress((start + done) / len(named))

            with ExitStack() as session:
                calls = [runner.prepared(feeds) for runner in _sessions(subjects, runtime, cores, session)]
                times = time_rounds(calls, min_time=min_time, seed=seed, progress=part)
            aside = _runtime_folds(subjects[0]) if runtime == "ort" and after is not None else ""
            rows.append(_row(runtime, cores, times, seed, aside))
    first = next(iter(feeds.values()), np.zeros(0))
    return Timing(tuple(rows), batch=first.shape[0] if first.ndim else 1)


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


def check_options(runtimes: Sequence[str] | None, threads: int | None, min_time: float) -> None:
    """Refuses what cannot be measured, before any work.

    Raises:
        UsageError: A runtime is unknown, or a number out of range.
    """
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


def time_rounds(
    calls: Sequence[Callable[[], Any]], *, min_time: float, seed: int, progress: Callable[[float], None]
) -> NDArray[np.float64]:
    """Seconds per inference, float64[rounds, calls]; the order within each round is random.

    The garbage collector rests meanwhile, as it would hit one session of a round and not the others.
    """
    once = [_warm_up(call) for call in calls]
    repeats = max(1, math.ceil(BLOCK_S / min(once)))
    rng = np.random.default_rng(seed)
    rounds: list[list[float]] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        spent = 0.0
        while len(rounds) < MIN_ROUNDS or (spent < min_time and len(rounds) < MAX_ROUNDS):
            taken = [0.0] * len(calls)
            for which in rng.permutation(len(calls)):
                taken[which] = _time(calls[which], repeats)
            rounds.append(taken)
            spent = time.perf_counter() - start
            progress(min(1.0, spent / min_time, len(rounds) / MIN_ROUNDS))
    finally:
        if collecting:
            gc.enable()
    return np.array(rounds)


def _warm_up(call: Callable[[], Any]) -> float:
    """The fastest of the first runs, in seconds; the first ones also compile, plan memory and pack weights."""
    with quiet():
        return min(_time(call, 1) for _ in range(3))


def _time(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def median_interval(ratios: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """The median of a series and its 95 % interval, by the moving-block bootstrap.

    Args:
        ratios: float64[rounds], in the order they were measured.
        seed: Of the resampling.

    Returns:
        Median, lower and upper end.
    """
    length = max(1, round(len(ratios) ** (1 / 3)))
    count = math.ceil(len(ratios) / length)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(ratios) - length + 1, size=(RESAMPLES, count, 1))
    drawn = ratios[(starts + np.arange(length)).reshape(RESAMPLES, -1)[:, : len(ratios)]]
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def _row(runtime: str, threads: int, times: NDArray[np.float64], seed: int, aside: str) -> Row:
    before_ms = float(np.median(times[:, 0])) * 1e3
    _, control_low, control_high = median_interval(times[:, 0] / times[:, 1], seed)
    if times.shape[1] == 2:
        verdict = f"a model against itself differs by {control_low:.3f} to {control_high:.3f} on this machine"
        return Row(runtime, threads, before_ms, None, None, None, None, control_low, control_high, verdict)
    after_ms = float(np.median(times[:, 2])) * 1e3
    speedup, low, high = median_interval(times[:, 0] / times[:, 2], seed)
    verdict = claim(speedup, low, high, control_low, control_high) + aside
    return Row(runtime, threads, before_ms, after_ms, speedup, low, high, control_low, control_high, verdict)


def claim(speedup: float, low: float, high: float, control_low: float, control_high: float) -> str:
    """What may be said about a speed-up, given its interval and the control's."""
    if low > 1 and low > control_high:
        return f"{speedup:.2f}× faster"
    if high < 1 and high < control_low:
        return f"{1 / speedup:.2f}× slower"
    return "no difference beyond the noise"


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
