"""How much faster is one model than another, and is that more than noise?

Everything happens in one process. Three sessions are made: before, before again (the control: a second session of the
same bytes, or a copy of the same network) and after. A round times all three in random order (`timing`) and yields two
ratios

    speed-up = before / after          control = before / before again

and after some rounds all three are made anew, in random order (`sessions`). The middle of each ratio is reported with a
95 % interval, and what may be claimed of it (`speedup`). Why it is done like this: docs/method.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from bnfold.benchmark.latency import Row, Timing, row_of
from bnfold.benchmark.sessions import time_sessions
from bnfold.benchmark.startup import Started, Starter, start_network, start_session
from bnfold.data.feeds import InputSpec, make_feeds
from bnfold.errors import UsageError
from bnfold.running.cuda import SPIN_UP_S, event_seconds, gpu_name
from bnfold.running.cuda import peak_bytes as cuda_peak_bytes
from bnfold.running.devices import check_device, require_device
from bnfold.running.memory import peak_bytes
from bnfold.running.pairing import Renamed, go_by_place
from bnfold.running.runners import (
    ORT_RUNTIMES,
    RUNTIMES,
    TORCH_RUNTIMES,
    Runner,
    batch_norms_after_load,
    check_runtime,
    count_operators,
    wrong_runtime,
)
from bnfold.running.subjects import OnnxSubject, Subject, TorchSubject, given_feeds, open_subjects
from bnfold.running.timing import Stopwatch, wall_seconds

DEFAULT_MIN_TIME_S = 2.0


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
            of a file that holds one, or what `fold` returned. It is not changed.
        after: The same, ONNX if `before` is and PyTorch if `before` is; None times `before` alone, with its control.
        inputs: Arrays or tensors to run on, as `verify` takes them; None draws them, at the batch of `specs`, else 1.
        runtimes: Of `RUNTIMES`: `ort`, `ort-as-written` and `openvino` for ONNX, `torch` and `torch-compile` for
            PyTorch. None takes the first two, or `torch`.
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
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    batch = next((spec.shape[0] for spec in specs if spec.shape), 1)
    rows: list[Row] = []
    with ExitStack() as stack:
        models = (before,) if after is None else (before, after)
        subjects = open_subjects(models, stack, inputs, specs, seed)
        named = check_runtimes(subjects, runtimes)
        place = device or subjects[0].device
        require_device(place, subjects[0].kind, named)
        subjects = tuple(subject.on(place) for subject in subjects)
        _check_inputs(subjects)
        given = None if inputs is None else given_feeds(subjects[0], inputs)
        feeds = make_feeds(subjects[0].declared, batch=batch, seed=seed, specs=specs, data=given)
        for index, runtime in enumerate(named):

            def part(done: float, start: int = index) -> None:
                if progress:
                    progress((start + done) / len(named))

            with ExitStack() as session:
                stopwatch, spin_up = _clock(subjects[0], session)
                _hold_still(subjects, cores, session)
                times, startups = time_sessions(
                    _starters(subjects, runtime, cores, feeds, stopwatch),
                    min_time=min_time,
                    seed=seed,
                    progress=part,
                    stopwatch=stopwatch,
                    spin_up=spin_up,
                    once=runtime == "torch-compile",
                )
            aside = _runtime_folds(subjects[0]) if runtime == "ort" and after is not None else ""
            rows.append(row_of(runtime, cores, place.partition(":")[0], times, startups, seed, aside))
        gpu = None if place == "cpu" else gpu_name(place)
        sizes = [subject.bytes for subject in subjects]
    shape = next((array.shape for array in feeds.values()), ())
    after_bytes = None if after is None else sizes[1]
    return Timing(tuple(rows), shape[0] if shape else 1, gpu, sizes[0], after_bytes, busy)


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
            raise wrong_runtime(runtime, kind, subjects[0].runtimes)
    return tuple(dict.fromkeys(runtimes))


def usual_runtimes(kind: str) -> tuple[str, ...]:
    """Where a kind of model is timed if nobody says: both ways of onnxruntime, or torch as it stands."""
    return ORT_RUNTIMES if kind == "ONNX" else TORCH_RUNTIMES[:1]


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


def _check_inputs(subjects: Sequence[Subject]) -> None:
    before, *after = ([decl.name for decl in subject.declared] for subject in subjects)
    for names in after:
        if len(names) != len(before):
            raise UsageError(
                f"the inputs are {before} before and {names} after", "Compare models that take the same inputs."
            )


def _hold_still(subjects: Sequence[Subject], threads: int, session: ExitStack) -> None:
    """Sets torch's threads, and puts back what a network that cannot be copied keeps in its buffers."""
    if isinstance(subjects[0], TorchSubject):
        from bnfold.running.torchrunner import torch_threads, unchanged

        session.enter_context(torch_threads(threads))
        for subject in subjects:
            assert isinstance(subject, TorchSubject)
            session.enter_context(unchanged(subject.network.module))


def _starters(
    subjects: Sequence[Subject],
    runtime: str,
    threads: int,
    feeds: Mapping[str, NDArray[Any]],
    stopwatch: Stopwatch,
) -> list[Starter]:
    """What starts the model before, the same once more, and the model after, by the names of the model before."""
    before = subjects[0]

    def starter(subject: Subject) -> Started:
        def make() -> Runner:
            runner = subject.again().runner(runtime, threads=threads)
            return Renamed(runner, [decl.name for decl in before.declared]) if go_by_place(before, subject) else runner

        if isinstance(subject, TorchSubject):
            peak_of = peak_bytes if subject.device == "cpu" else cuda_peak_bytes
            return start_network(make, feeds, stopwatch, subject.bytes, peak_of)
        call, startup = start_session(make, feeds)
        # onnxruntime does not tell what it takes of another device's memory
        return call, startup if subject.device == "cpu" else replace(startup, peak_bytes=None)

    return [partial(starter, subject) for subject in (before, *subjects)]


def _clock(subject: Subject, session: ExitStack) -> tuple[Stopwatch, float]:
    """How calls are timed, and how long a device is spun up before.

    Those of onnxruntime, and of PyTorch on the CPU, return when their work is done.
    """
    if not isinstance(subject, TorchSubject) or subject.device == "cpu":
        return wall_seconds, 0.0
    import torch

    session.enter_context(torch.cuda.device(subject.device))
    return event_seconds, SPIN_UP_S


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
