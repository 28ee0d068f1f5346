"""Measures what `bnfold.fold` of a ResNet-50 takes at its peak, in fresh processes: a section of docs/benchmarks.md.

    python scripts/fold_memory.py
    python scripts/fold_memory.py --processes 3 timm:repvgg_a0@224x224

Each process folds the network several times, dropping every result. The peak is that of the whole call, torch.export
and the trial included, beyond what the process held just before. The exit status is 1 where a later fold takes more
than 1.005 times the weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pages import BENCHMARKS, DOCS, machine, paragraph, write_json, write_section
from workers import run, serve

DATA = DOCS / "fold_memory.json"
PACKAGES = ("torch", "timm", "torchvision")
FOLDS = 6
LIMIT = 1.005  # in parts of the weights; the second decimal of 1.00
WORDS = (
    "Written by `scripts/fold_memory.py`: {machine}, one thread; {network}, input {shape}, {processes} fresh processes "
    "with {folds} folds each. The peak of the resident size (`VmHWM`) during the whole call of `bnfold.fold`, "
    "`torch.export` and the trial included, beyond what the process held before it (garbage and free memory given "
    "back), in parts of the weights' {megabytes:.1f} MB. The new tensors alone are {new:.3f}: BatchNorms have gone. "
    "The first fold in a process also loads and compiles what torch needs to export and run a network, once "
    "({once:.0f} MB, hardly more for larger networks), and torch still fills caches during the second."
)


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """The peaks of one process.

    Args:
        task: `source`, `name`, `input`, `seed`, `shim`.
    """
    import torch
    from zoo_models import Entry, build, import_shim

    import bnfold
    from bnfold.running.memory import PeakMemory

    torch.set_num_threads(1)
    import_shim(task["shim"])
    module, example = build(Entry(task["source"], task["name"], tuple(task["input"])), seed=task["seed"])
    peaks, new = [], 0
    for _ in range(FOLDS):
        with PeakMemory() as peak:
            folded: Any = bnfold.fold(module, example).model
        peaks.append(peak.bytes)
        new = _bytes(folded)
        del folded
    return {"weights": _bytes(module), "new": new, "peaks": peaks}


def _bytes(module: Any) -> int:
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def section(data: Mapping[str, Any]) -> str:
    """The section of the page."""
    runs, weights = data["runs"], data["runs"][0]["weights"]
    parts = _in_parts(runs)
    words = WORDS.format(
        machine=data["machine"],
        network=f"`{data['network']}`",
        shape="×".join(map(str, data["input"])),
        processes=len(runs),
        folds=FOLDS,
        megabytes=weights / 1e6,
        new=runs[0]["new"] / weights,
        once=(median(parts["first fold in a process"]) - median(parts["later ones"])) * weights / 1e6,
    )
    rows = [f"| {name} | {min(of):.3f} | {median(of):.3f} | {max(of):.3f} |" for name, of in parts.items()]
    head = ["| peak beyond the original | smallest | median | largest |", "|---|--:|--:|--:|"]
    return "\n".join(["## Memory of a fold", "", *paragraph(words), *head, *rows, ""])


def _in_parts(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    parts = [[peak / each["weights"] for peak in each["peaks"]] for each in runs]
    return {
        "first fold in a process": [each[0] for each in parts],
        "second": [each[1] for each in parts],
        "later ones": [peak for each in parts for peak in each[2:]],
    }


def main() -> int:
    from zoo_models import SHIM, parse_entry

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", nargs="?", default="torchvision:resnet50@224x224", help="SOURCE:NAME@HEIGHTxWIDTH")
    parser.add_argument("--processes", type=int, default=9)
    parser.add_argument("--shim", default=str(SHIM), help="a Python file to run before torchvision, if it is there")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    entry = parse_entry(arguments.network)
    task = {"source": entry.source, "name": entry.name, "input": entry.input}
    runs = [
        run(Path(__file__), {**task, "seed": arguments.seed, "shim": arguments.shim})
        for _ in range(arguments.processes)
    ]
    failed = [each["error"] for each in runs if "error" in each]
    if failed:
        print(failed[0], file=sys.stderr)
        return 1
    data = {"machine": machine(*PACKAGES), "network": entry.key, "input": entry.input, "runs": runs}
    if arguments.network == parser.get_default("network"):
        write_json(DATA, data)
        write_section(BENCHMARKS, "fold-memory", section(data))
    else:
        print(section(data))
    return int(max(_in_parts(runs)["later ones"]) > LIMIT)


if __name__ == "__main__":
    sys.exit(main() if not serve(measure) else 0)
