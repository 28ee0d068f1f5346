"""Times modules before and after `bnfold.fold`, eager and compiled, and writes a section of docs/benchmarks.md.

    python scripts/latency_modules.py
    python scripts/latency_modules.py --only repvgg_a0 --again --min-time 5
    python scripts/latency_modules.py --device cuda --out found.json      on a machine with a GPU; writes that file only
    python scripts/latency_modules.py --device cuda --render found.json   anywhere; writes the section

Original, original once more (the control) and result run in one process in rounds of random order (`bnfold.bench`),
eager and as `torch.compile` makes them. On the CPU: batch 1, one thread, every network in a process of its own. On
CUDA: `latency_cuda.py`. Networks are drawn as in zoo.py.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
WAYS = {"eager": "torch", "torch.compile": "torch-compile"}
COLUMNS = ("network", "input", "BatchNorms, merged, left", "", "before", "after", "speed-up (95 %)", "control (95 %)")


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Latency of one network, before and after.

    Args:
        task: `source`, `name`, `input`, `seed`, `min_time`, `shim`.
    """
    import bnfold

    module, example = network(task)
    folded = bnfold.fold(module, example)
    timing = bnfold.bench(
        module,
        folded.model,
        example,
        runtimes=list(WAYS.values()),
        threads=1,
        min_time=task["min_time"],
        seed=task["seed"],
    )
    rows = {way: row.to_dict() for way, row in zip(WAYS, timing.rows, strict=True)}
    return {"input": list(example.shape), "counts": counts(folded.plan), "rows": rows, "notes": list(folded.plan.notes)}


def network(task: Mapping[str, Any]) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network with drawn weights and an example, from `source`, `name`, `input`, `seed` and `shim`."""
    import_shim(task["shim"])
    if task["source"] != "models":
        return build(Entry(task["source"], task["name"], tuple(task["input"])), seed=task["seed"])
    if str(MODELS) not in sys.path:
        sys.path.insert(0, str(MODELS))
    torch.manual_seed(task["seed"])
    module = importlib.import_module("architectures").iresnet(width=256)
    draw_statistics(module, 0.0)
    return module.eval(), torch.randn(*task["input"])


def counts(plan: Any) -> list[int]:
    """BatchNorms, those that went with a merge, those that stay."""
    return [plan.batch_norms, plan.merged, plan.kept]


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
        *heading(),
        *(line for name, model in data["models"].items() for line in _lines(name, model)),
    ])  # fmt: skip


def heading() -> list[str]:
    """The head of the table."""
    return [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * 4}{'--:|' * 4}"]


def _lines(name: str, model: Mapping[str, Any]) -> list[str]:
    if "error" in model:
        return [f"| `{name}` | {model['error']} | | | | | | |"]
    return [line(name, model["input"], model["counts"], way, row) for way, row in model["rows"].items()]


def line(name: str, shape: list[int], counted: list[int], way: str, row: Mapping[str, Any]) -> str:
    """One line of the table."""
    return (
        f"| `{name}` | {'×'.join(map(str, shape))} | {', '.join(map(str, counted))} | {way} "
        f"| {row['before_ms']:.2f} ms | {row['after_ms']:.2f} ms "
        f"| {row['speedup']:.3f} ({row['low']:.3f} – {row['high']:.3f}) "
        f"| {row['control_low']:.3f} – {row['control_high']:.3f} |"
    )


def failures(models: Mapping[str, Any]) -> list[str]:
    """Networks that could not be measured."""
    return [f"{name}: {model['error']}" for name, model in models.items() if "error" in model]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="only these networks: NAME,NAME")
    parser.add_argument("--min-time", type=float, help="seconds to time each network for, in each way; 4, on CUDA 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shim", default=str(SHIM), help="a Python file to run before torchvision, if it is needed")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="with --device cuda: the file to write what is measured to")
    parser.add_argument("--budget", type=float, default=285.0, help="with --out: seconds to stop after")
    parser.add_argument("--render", type=Path, help="with --device cuda: write the section from such a file")
    add_again(parser)
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        import latency_cuda

        return latency_cuda.run(parser, arguments)
    wanted = set((arguments.only or "").split(",")) - {""}
    entries = [entry for entry in NETWORKS if not wanted or entry.name in wanted]
    table = Table("latency-modules", Path(__file__), DATA, PACKAGES, section, failures)
    return table.measure(entries, arguments, min_time=arguments.min_time or 4.0)


if __name__ == "__main__":
    sys.exit(main() if not serve(measure) else 0)
