"""Times models against themselves, and counts how often that looks like a difference; a section of docs/benchmarks.md.

    python scripts/aa_runs.py                        100 runs: five models, two runtimes, ten runs each
    python scripts/aa_runs.py --only unet --again

`bnfold.bench(before, before)`: three sessions of one model, of which one plays the model after. The 95 % interval of
its speed-up should exclude 1 in 5 of 100 runs; a gain or a loss should hardly ever be claimed. Each model has a process
of its own, each run new sessions and another seed. The exit status is 1 where more than 8 % of the intervals exclude 1.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import DOCS, paragraph
from tables import Table, add_again
from workers import serve
from zoo_models import Entry, export

DATA = DOCS / "aa_runs.json"
MODELS = Path(__file__).resolve().parent.parent / "models"
PACKAGES = ("torch", "onnxruntime")
NETWORKS = ("resnet", "preact_resnet", "repvgg", "densenet", "unet")
RUNTIMES = ("ort", "torch")
LARGEST_SHARE = 0.08


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """The intervals of one model against itself, by runtime.

    Args:
        task: `name`, `runs`, `seed`, `min_time`.
    """
    import bnfold

    sys.path.insert(0, str(MODELS))
    module = getattr(importlib.import_module("architectures"), task["name"])().eval()
    module.load_state_dict(torch.load(MODELS / f"{task['name']}.pt", weights_only=True))
    example = torch.rand(module.example_input_array.shape, generator=torch.Generator().manual_seed(task["seed"]))
    proto = export(module, example, optimize=False).model_proto
    found: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in RUNTIMES}
    for run in range(task["runs"]):
        for runtime in RUNTIMES:
            before, after = (module, copy.deepcopy(module)) if runtime == "torch" else (proto, proto)
            seed = [task["seed"], *task["name"].encode(), RUNTIMES.index(runtime), run]
            timing = bnfold.bench(
                before, after, example, runtimes=[runtime], threads=1, min_time=task["min_time"], seed=_drawn(seed)
            )
            [row] = timing.rows
            kept = ("before_ms", "sessions", "speedup", "low", "high", "control_low", "control_high", "verdict")
            found[runtime].append({key: getattr(row, key) for key in kept} | {"noisy": bool(row.noise)})
    return {"runs": found}


def _drawn(words: Sequence[int]) -> int:
    """A seed of its own for each run, so that no order of starting is tried more often than another."""
    return int(np.random.default_rng(words).integers(2**32))


def section(data: Mapping[str, Any]) -> str:
    """The section of the page."""
    rows = [
        (f"`{name}`", runtime, runs)
        for name, model in data["models"].items()
        for runtime, runs in model.get("runs", {}).items()
    ]
    every = [run for _, _, runs in rows for run in runs]
    totals = [
        ("all", runtime, [run for _, each, runs in rows if each == runtime for run in runs]) for runtime in RUNTIMES
    ]
    return "\n".join([
        "## A model against itself",
        "",
        *paragraph(
            f"Written by `scripts/aa_runs.py`: {data['machine']}, one thread, batch 1. Runs of `bnfold.bench` in which "
            "both models are the same, on the trained networks of `models/`: how often the 95 % interval of the "
            "speed-up excludes 1, which should be 5 of 100, and how often a gain or a loss is claimed, which would be "
            "wrong. The widths are of the interval, medians. [The method](method.md) says how an interval is made."
        ),
        "| model | runtime | runs | latency | interval excludes 1 | claimed | width of the interval |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(_line(name, runtime, runs) for name, runtime, runs in [*rows, *totals, ("**all**", "", every)]),
    ])  # fmt: skip


def _line(name: str, runtime: str, runs: Sequence[Mapping[str, Any]]) -> str:
    latency = f"{_median([run['before_ms'] for run in runs]):.3f} ms" if name.startswith("`") else ""
    width = 100 * _median([run["high"] - run["low"] for run in runs])
    return (
        f"| {name} | {runtime} | {len(runs)} | {latency} | {sum(map(excludes, runs))} | {sum(map(claimed, runs))} "
        f"| {width:.1f} % |"
    )


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5)) if values else float("nan")


def excludes(run: Mapping[str, Any]) -> bool:
    """Whether the interval of a run lies on one side of 1."""
    return bool(run["low"] > 1 or run["high"] < 1)


def claimed(run: Mapping[str, Any]) -> bool:
    """Whether a difference was claimed."""
    return "×" in run["verdict"]


def shortfalls(models: Mapping[str, Any]) -> list[str]:
    """Models that could not be measured, and more wrong intervals than allowed."""
    found = [f"{name}: {model['error']}" for name, model in models.items() if "error" in model]
    runs = [run for model in models.values() for each in model.get("runs", {}).values() for run in each]
    wrong = sum(map(excludes, runs))
    if wrong > LARGEST_SHARE * len(runs):
        found.append(f"the interval excludes 1 in {wrong} of {len(runs)} runs")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="only these models: NAME,NAME")
    parser.add_argument("--runs", type=int, default=10, help="runs of each model in each runtime")
    parser.add_argument("--min-time", type=float, default=1.0, help="seconds of each run")
    parser.add_argument("--seed", type=int, default=0)
    add_again(parser)
    arguments = parser.parse_args()
    arguments.shim = None
    wanted = set((arguments.only or "").split(",")) - {""}
    entries = [Entry("models", name) for name in NETWORKS if not wanted or name in wanted]
    table = Table("aa-runs", Path(__file__), DATA, PACKAGES, section, shortfalls)
    return table.measure(entries, arguments, runs=arguments.runs, min_time=arguments.min_time)


if __name__ == "__main__":
    sys.exit(main() if not serve(measure) else 0)
