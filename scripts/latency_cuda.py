"""What `latency_modules.py --device cuda` does: measure on a machine with a GPU, and render elsewhere.

All networks eager come first, then compiled, so that a run whose time is up has lost the least. Every result is written
as soon as it is there. Weights are folded on the CPU and moved; inputs lie on the device.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from latency_modules import WAYS, counts, heading, line, network
from pages import BENCHMARKS, DOCS, machine, paragraph, write_json, write_section
from workers import run_many, serve_many
from zoo_models import Entry

DATA = DOCS / "latency_cuda.json"
PACKAGES = ("torch", "timm", "torchvision", "onnx-ir")
NETWORKS = (
    Entry("torchvision", "resnet50", (1, 3, 224, 224)),
    Entry("torchvision", "resnet18", (1, 3, 224, 224)),
    Entry("timm", "mobileone_s0", (1, 3, 224, 224)),
    Entry("timm", "repvgg_a0", (1, 3, 224, 224)),
    Entry("timm", "resnetv2_18", (1, 3, 224, 224)),
    Entry("models", "iresnet", (1, 1, 8, 8)),
)
BATCHES = {"eager": (1, 64), "torch.compile": (1, 64)}
LIMIT_S = 120.0
CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "temperature.gpu", "driver_version")


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Latency of one network on the GPU at one batch, in one way.

    Args:
        task: `source`, `name`, `input`, `batch`, `way`, `device`, `seed`, `min_time`, `shim`.
    """
    import bnfold

    module, folded = _folded(json.dumps({key: task[key] for key in ("source", "name", "input", "seed", "shim")}))
    torch._dynamo.reset()  # another batch would make its sizes symbols
    torch.manual_seed(task["seed"])
    x = torch.randn(task["batch"], *task["input"][1:])
    timing = bnfold.bench(
        module,
        folded.model,
        x,
        runtimes=[WAYS[task["way"]]],
        device=task["device"],
        min_time=task["min_time"],
        seed=task["seed"],
    )
    return {
        "network": f"{task['source']}:{task['name']}",
        "input": list(x.shape),
        "way": task["way"],
        "counts": counts(folded.plan),
        "row": timing.rows[0].to_dict(),
        "gpu": timing.gpu,
        "clocks": clocks(),
        "difference_float64": _difference(module, folded.model, x.to(task["device"])) if task["batch"] == 1 else None,
        "notes": list(folded.plan.notes),
    }


@functools.cache
def _folded(task: str) -> tuple[torch.nn.Module, Any]:
    import bnfold

    module, example = network(json.loads(task))
    return module, bnfold.fold(module, example)


def _difference(before: torch.nn.Module, after: torch.nn.Module, x: torch.Tensor) -> float:
    """The largest difference of their outputs in parts of the largest, in float64, on the device of the input."""
    with torch.no_grad():
        first, second = (copy.deepcopy(each).double().to(x.device)(x.double()) for each in (before, after))
    return float((first - second).abs().max() / first.abs().max())


def clocks() -> dict[str, str] | None:
    """What nvidia-smi says about the first GPU now; None where it says nothing."""
    command = ["nvidia-smi", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in said.splitlines()[0].split(",")] if said else []
    return dict(zip(CLOCKS, values, strict=True)) if len(values) == len(CLOCKS) else None


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Measures, or renders what was measured; the exit status is 1 where something has no result."""
    if arguments.render is not None:
        data = json.loads(arguments.render.read_text())
        write_json(DATA, data)
        write_section(BENCHMARKS, "latency-cuda", section(data))
        return 0
    if arguments.out is None:
        parser.error("--device cuda needs --out FILE, or --render FILE")
    if not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} finds no CUDA device here")
    wanted = set((arguments.only or "").split(",")) - {""}
    entries = [entry for entry in NETWORKS if not wanted or entry.name in wanted]
    more = {
        "device": arguments.device,
        "seed": arguments.seed,
        "shim": arguments.shim,
        "min_time": arguments.min_time or 2.0,
    }
    tasks = [
        {"source": entry.source, "name": entry.name, "input": entry.input, "batch": batch, "way": way, **more}
        for way in WAYS
        for place in range(max(map(len, BATCHES.values())))
        for entry in entries
        for batch in BATCHES[way][place : place + 1]
    ]
    data = {"machine": machine(*PACKAGES), "cuda": torch.version.cuda, "clocks_idle": clocks(), "results": {}}

    def keep(task: Mapping[str, Any], result: dict[str, Any]) -> None:
        key = f"{task['source']}:{task['name']} {task['way']} {task['batch']}"
        data["results"][key] = result
        write_json(arguments.out, data)
        print(key, result.get("error") or result["row"]["verdict"], file=sys.stderr, flush=True)

    unmeasured = run_many(Path(__file__), tasks, keep, limit_s=LIMIT_S, budget_s=arguments.budget)
    for task in tasks[len(tasks) - unmeasured :]:
        print(f"no time for {task['name']} {task['way']} {task['batch']}", file=sys.stderr)
    return int(bool(unmeasured) or any("error" in result for result in data["results"].values()))


def section(data: Mapping[str, Any]) -> str:
    """The section of the page."""
    results = data["results"]
    found = [result for result in results.values() if "error" not in result]
    failed = [f"- `{key}`: {result['error']}" for key, result in results.items() if "error" in result]
    found.sort(key=lambda result: [f"{each.source}:{each.name}" for each in NETWORKS].index(result["network"]))
    lines = [line(each["network"], each["input"], each["counts"], each["way"], each["row"]) for each in found]
    return "\n".join([
        "## Latency of modules on a GPU",
        "",
        *paragraph(
            f"Written by `scripts/latency_modules.py --device cuda`: {_gpu(found)}, CUDA {data['cuda']}, "
            f"{data['machine']}. `bnfold.fold(module, example)` against the module as it was, float32 with torch's "
            "defaults (TF32 in convolutions), eager and after `torch.compile` with its defaults; one call at a time "
            "between two CUDA events, inputs on the device, its clocks up, in rounds of random order in one process; "
            "medians with 95 % intervals. The control is the module against a copy of itself. `iresnet` is that of "
            f"`models/`, 256 channels wide; weights are drawn.{_apart(found)} PyTorch adds the bias of a convolution "
            "in a pass of its own, so a BatchNorm is traded for a bias. Where one stands behind a pooling and its "
            "shift goes in front of it, as in the stem of `resnetv2_18`, that pass is over more pixels, and a large "
            "batch gets slower."
        ),
        *heading(),
        *lines,
        *(["", *failed] if failed else []),
    ])  # fmt: skip


def _gpu(found: Sequence[Mapping[str, Any]]) -> str:
    names = " and ".join(dict.fromkeys(result["gpu"] for result in found))
    said = [result["clocks"] for result in found if result["clocks"]]
    if not said:
        return names
    speeds = sorted(int(each["clocks.sm"].split()[0]) for each in said)
    return (
        f"{names} at {speeds[0]} to {speeds[-1]} MHz of {said[0]['clocks.max.sm']}, driver {said[0]['driver_version']}"
    )


def _apart(found: Sequence[Mapping[str, Any]]) -> str:
    apart = [result["difference_float64"] for result in found if result["difference_float64"] is not None]
    return f" In float64 on the GPU, outputs differ by at most {max(apart):.1e} of the largest." if apart else ""


if __name__ == "__main__":
    serve_many(measure)
