"""Times modules before and after `bnfold.fold`, eager and compiled, and writes a section of docs/benchmarks.md.

    python scripts/latency_modules.py
    python scripts/latency_modules.py --only repvgg_a0 --again --min-time 5

Original, original once more (the control) and result run in one process in rounds of random order, batch 1, one thread,
eager and as `torch.compile` makes them; every network has a process of its own. Networks are drawn as in zoo.py.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import DOCS, paragraph
from tables import Table, add_again
from workers import serve
from zoo_models import SHIM, Entry, build, draw_statistics, import_shim

DATA = DOCS / "latency_modules.json"
MODELS = Path(__file__).resolve().parent.parent / "models"
PACKAGES = ("torch", "timm", "torchvision")
NETWORKS = (
    Entry("torchvision", "resnet18", (1, 3, 64, 64)),
    Entry("torchvision", "resnet50", (1, 3, 64, 64)),
    Entry("timm", "resnetv2_18", (1, 3, 64, 64)),
    Entry("models", "iresnet", (1, 1, 8, 8)),
    Entry("timm", "mobileone_s0", (1, 3, 64, 64)),
    Entry("timm", "repvgg_a0", (1, 3, 64, 64)),
)
WAYS = ("eager", "torch.compile")


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Latency of one network, before and after.

    Args:
        task: `source`, `name`, `input`, `seed`, `min_time`, `shim`.
    """
    import bnfold
    from bnfold.bench import median_interval, time_rounds

    torch.set_num_threads(1)
    import_shim(task["shim"])
    module, example = _network(task)
    folded = bnfold.fold(module, example)
    rows = {}
    for way in WAYS:
        three = (module, copy.deepcopy(module), folded.model)
        runners = [torch.compile(each) if way == "torch.compile" else each for each in three]
        calls = [partial(each, example) for each in runners]
        with torch.no_grad():
            times = time_rounds(calls, min_time=task["min_time"], seed=task["seed"], progress=lambda done: None)
        speedup, control = (median_interval(times[:, 0] / times[:, i], task["seed"]) for i in (2, 1))
        before, _, after = (1000 * float(np.median(column)) for column in times.T)
        rows[way] = {"before_ms": before, "after_ms": after, "speedup": speedup, "control": control}
    plan = folded.plan
    counts = [plan.batch_norms, plan.merged, plan.kept]
    return {"input": list(example.shape), "counts": counts, "rows": rows, "notes": list(plan.notes)}


def _network(task: Mapping[str, Any]) -> tuple[torch.nn.Module, torch.Tensor]:
    if task["source"] != "models":
        return build(Entry(task["source"], task["name"], tuple(task["input"])), seed=task["seed"])
    sys.path.insert(0, str(MODELS))
    torch.manual_seed(task["seed"])
    module = importlib.import_module("architectures").iresnet(width=256)
    draw_statistics(module, 0.0)
    return module.eval(), torch.randn(*task["input"])


def section(data: Mapping[str, Any]) -> str:
    """The section of the page."""
    return "\n".join([
        "## Latency of modules",
        "",
        *paragraph(
            f"Written by `scripts/latency_modules.py`: {data['machine']}. `bnfold.fold(module, example)` against the "
            "module as it was, batch 1, one thread, in rounds of random order in one process, eager and after "
            "`torch.compile`; medians with 95 % intervals. The control is the module against a copy of itself. "
            "`iresnet` is that of `models/`, 256 channels wide, with drawn weights."
        ),
        "| network | input | BatchNorms, merged, left | | before | after | speed-up (95 %) | control (95 %) |",
        "|---|---|---|---|--:|--:|--:|--:|",
        *(line for name, model in data["models"].items() for line in _lines(name, model)),
    ])  # fmt: skip


def _lines(name: str, model: Mapping[str, Any]) -> list[str]:
    if "error" in model:
        return [f"| `{name}` | {model['error']} | | | | | | |"]
    lines = []
    for way, row in model["rows"].items():
        (speedup, low, high), (_, least, most) = row["speedup"], row["control"]
        lines.append(
            f"| `{name}` | {'×'.join(map(str, model['input']))} | {', '.join(map(str, model['counts']))} | {way} "
            f"| {row['before_ms']:.2f} ms | {row['after_ms']:.2f} ms | {speedup:.3f} ({low:.3f} – {high:.3f}) "
            f"| {least:.3f} – {most:.3f} |"
        )
    return lines


def failures(models: Mapping[str, Any]) -> list[str]:
    """Networks that could not be measured."""
    return [f"{name}: {model['error']}" for name, model in models.items() if "error" in model]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="only these networks: NAME,NAME")
    parser.add_argument("--min-time", type=float, default=4.0, help="seconds to time each network for, in each way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shim", default=str(SHIM), help="a Python file to run before torchvision, if it is there")
    add_again(parser)
    arguments = parser.parse_args()
    wanted = set((arguments.only or "").split(",")) - {""}
    entries = [entry for entry in NETWORKS if not wanted or entry.name in wanted]
    table = Table("latency-modules", Path(__file__), DATA, PACKAGES, section, failures)
    return table.measure(entries, arguments, min_time=arguments.min_time)


if __name__ == "__main__":
    sys.exit(main() if not serve(measure) else 0)
