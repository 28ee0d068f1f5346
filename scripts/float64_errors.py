"""How far original and folded ONNX models are from float64, and the ratio; writes a section of docs/benchmarks.md.

    python scripts/float64_errors.py                      all, those that are missing in docs/float64.json
    python scripts/float64_errors.py --only repvgg_a0 --again
    python scripts/float64_errors.py timm:resnet18@64x64

Trained models of models/ and the networks of the zoo with drawn weights. Both models run as written (onnxruntime,
optimisations off) in float32; the original runs in float64 by bnfold's evaluator. Every network has a process of its
own and is written as soon as it is done. The exit status is 1 where the gate fails a fold, or a network fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from modules import MODELS, _network
from pages import DOCS, paragraph
from tables import Table, add_again
from workers import serve
from zoo_models import Entry, add_selection, export, import_shim, selection

DATA = DOCS / "float64.json"
PACKAGES = ("torch", "onnx", "onnxruntime", "timm", "torchvision")
INPUTS = 3
COLUMNS = ("network", "original", "folded", "ratio", "largest, original", "largest, folded", "gate", "float64 run")
WORDS = (
    "Written by `scripts/float64_errors.py`: {machine}, one thread, float32. How far the original and the folded ONNX "
    "model, both run as written by onnxruntime, are from the original in float64. Errors and their ratio are root mean "
    "squares in parts of that of the output, medians over {inputs} drawn inputs; the largest errors are in parts of "
    "the output's largest value, over all inputs, and are what the gate judges together with their ratio. Trained are "
    "those of `models:`; the zoo's weights are drawn. The last column is the time of one float64 run."
)


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """The errors of one network.

    Args:
        task: `source`, `name`, `input`, `seed`, `shim`.
    """
    import bnfold
    from bnfold.running.runners import OrtRunner
    from bnfold.verification.yardstick import Float64Runner, errors, worst_errors

    torch.set_num_threads(1)
    import_shim(task["shim"])
    module, example = _network(task)
    before = export(module, example, optimize=False).model_proto
    after = bnfold.fold(before).model
    runners = [OrtRunner(model.SerializeToString(), optimize=False, threads=1) for model in (before, after)]
    exact = Float64Runner(before)
    [name] = runners[0].input_names
    runs, seconds = [], []
    for seed in range(INPUTS):
        x = np.random.default_rng(seed).standard_normal(example.shape).astype(np.float32)
        started = time.process_time()
        reference = exact.run({name: x})
        seconds.append(time.process_time() - started)
        runs.append(errors(reference, *(runner.run({name: x}) for runner in runners)))
    problem = next((error.problem for found in runs for error in found if error.problem), "")
    if problem:
        return {"error": problem}
    worst = max(worst_errors(runs), key=lambda error: ("pass", "warn", "fail").index(error.level))
    squares = [[max(getattr(e, f"rms_{side}") for e in found) for found in runs] for side in ("before", "after")]
    ratios = [max(e.rms_after / e.rms_before if e.rms_before else 1.0 for e in found) for found in runs]
    return {
        "input": list(example.shape),
        "rms": [median(side) for side in squares],
        "ratio": median(ratios),
        "largest": [worst.error_before, worst.error_after],
        "level": worst.level,
        "seconds": median(seconds),
    }


def section(data: Mapping[str, Any]) -> str:
    """The section of the page."""
    models = data["models"]
    return "\n".join([
        "## Errors against float64",
        "",
        *paragraph(WORDS.format(machine=data["machine"], inputs=INPUTS)),
        "| networks | | ratio folded/original, median | largest |",
        "|---|--:|--:|--:|",
        *_summary("trained", {name: m for name, m in models.items() if name.startswith("models:")}),
        *_summary("zoo", {name: m for name, m in models.items() if not name.startswith("models:")}),
        *_summary("all", models),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|--:|--:|--:|--:|--:|---|--:|",
        *(_row(name, model) for name, model in models.items()),
    ])  # fmt: skip


def _summary(kind: str, models: Mapping[str, Any]) -> list[str]:
    ratios = [model["ratio"] for model in models.values() if "error" not in model]
    return [f"| {kind} | {len(ratios)} | {median(ratios):.2f} | {max(ratios):.2f} |"] if ratios else []


def _row(name: str, model: Mapping[str, Any]) -> str:
    if "error" in model:
        return f"| `{name}` | {model['error']} | | | | | | |"
    numbers = [f"{error:.1e}" for error in (*model["rms"], *model["largest"])]
    return (
        f"| `{name}` | {numbers[0]} | {numbers[1]} | {model['ratio']:.2f} | {numbers[2]} | {numbers[3]} "
        f"| {model['level']} | {model['seconds']:.2f} s |"
    )


def shortfalls(models: Mapping[str, Any]) -> list[str]:
    """Networks that fail the gate, and those that could not be measured."""
    return [
        f"{name}: {m.get('error', m.get('level'))}"
        for name, m in models.items()
        if m.get("level") not in ("pass", "warn")
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_selection(parser)
    add_again(parser)
    arguments = parser.parse_args()
    entries = selection(parser, arguments)
    if not arguments.names and not arguments.only:
        entries = [*(Entry("models", path.stem) for path in sorted(MODELS.glob("*.pt"))), *entries]
    return Table("float64", Path(__file__), DATA, PACKAGES, section, shortfalls).measure(entries, arguments)


if __name__ == "__main__":
    sys.exit(main() if not serve(measure) else 0)
