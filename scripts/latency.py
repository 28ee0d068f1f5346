"""Times bnfold's result against torch's own default export, and writes a section of docs/benchmarks.md.

    python scripts/latency.py                          the networks of the list, those missing in docs/latency.json
    python scripts/latency.py --only repvgg_a0 --again
    python scripts/latency.py timm:mobileone_s0 timm:repvit_m0_9@64x64
    python scripts/latency.py --runtime openvino       another section, and docs/latency_openvino.json

Both run in one process on onnxruntime with its default optimisations, or on OpenVINO, batch 1, one thread, in rounds of
random order with a second session of torch's export as the control (`bnfold.bench`). Every network has a process of its
own. The exit status is 1 where a network became measurably slower, or could not be measured. Networks are drawn as in
zoo.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pages import DOCS, paragraph
from tables import Table, add_again
from workers import serve
from zoo_models import Entry, add_selection, build, export, import_shim, selection

PACKAGES = ("torch", "onnxruntime", "timm", "torchvision")
RUNTIMES = {
    "ort": "onnxruntime with its default optimisations",
    "openvino": "OpenVINO with the hint for latency and the model's own precision",
}


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Latency of one network, exported by torch as it does by default, and folded by bnfold.

    Args:
        task: `source`, `name`, `input`, `runtime`, `seed`, `min_time`, `rtol`, `shim`.
    """
    from bnfold import bench, fold, verify

    import_shim(task["shim"])
    module, example = build(Entry(task["source"], task["name"], task["input"]), seed=task["seed"])
    before = export(module, example, optimize=True).model_proto
    folded = fold(export(module, example, optimize=False).model_proto)
    verdict = verify(before, folded.model, [example.numpy()], rtol=task["rtol"])
    if not verdict:
        return {"error": "; ".join(verdict.failures)}
    timing = bench(
        before,
        folded.model,
        [example.numpy()],
        runtimes=[task["runtime"]],
        threads=1,
        min_time=task["min_time"],
        seed=task["seed"],
    )
    return {
        "input": list(example.shape),
        "norms": folded.plan.batch_norms,
        "nodes": [len(before.graph.node), len(folded.model.graph.node)],
        **timing.rows[0].to_dict(),
    }


def section(data: Mapping[str, Any], runtime: str) -> str:
    """The section of the page."""
    rows = [_row(name, model) for name, model in data["models"].items()]
    return "\n".join([
        "## Latency" if runtime == "ort" else "## Latency on OpenVINO",
        "",
        *paragraph(
            f"Written by `scripts/latency.py{'' if runtime == 'ort' else f' --runtime {runtime}'}`: {data['machine']}. "
            "bnfold's result against what `torch.onnx.export(dynamo=True)` makes by default, both on "
            f"{RUNTIMES[runtime]}, "
            "batch 1, one thread, in rounds of random order in one process; medians with 95 % intervals. The control "
            "is torch's export against itself. Weights and statistics are drawn as for the [zoo](zoo.md)."
        ),
        "| network | input | nodes, torch | nodes, bnfold | torch | bnfold | speed-up (95 %) | control (95 %) |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        *rows,
    ])  # fmt: skip


def _row(name: str, model: Mapping[str, Any]) -> str:
    if "error" in model:
        return f"| `{name}` | {model['error']} | | | | | | |"
    before, after = model["nodes"]
    return (
        f"| `{name}` | {'×'.join(map(str, model['input']))} | {before} | {after} | {model['before_ms']:.2f} ms "
        f"| {model['after_ms']:.2f} ms | {model['speedup']:.3f} ({model['low']:.3f} – {model['high']:.3f}) "
        f"| {model['control_low']:.3f} – {model['control_high']:.3f} |"
    )


def shortfalls(models: Mapping[str, Any]) -> list[str]:
    """Networks that became measurably slower, and those that could not be measured."""
    return [
        f"{name}: {model['error'] if 'error' in model else model['verdict']}"
        for name, model in models.items()
        if "error" in model or model["high"] < 1
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_selection(parser)
    parser.add_argument("--min-time", type=float, default=10.0, help="seconds to time each network for")
    parser.add_argument("--rtol", type=float, default=1e-3, help="largest difference of an output before it is timed")
    parser.add_argument("--runtime", choices=RUNTIMES, default="ort")
    add_again(parser)
    arguments = parser.parse_args()
    runtime = arguments.runtime
    name = "latency" if runtime == "ort" else f"latency_{runtime}"
    packages = PACKAGES if runtime == "ort" else (*PACKAGES, runtime)
    table = Table(
        name.replace("_", "-"),
        Path(__file__),
        DOCS / f"{name}.json",
        packages,
        partial(section, runtime=runtime),
        shortfalls,
    )
    entries = selection(parser, arguments)
    return table.measure(entries, arguments, min_time=arguments.min_time, rtol=arguments.rtol, runtime=runtime)


if __name__ == "__main__":
    sys.exit(main() if not serve(measure) else 0)
