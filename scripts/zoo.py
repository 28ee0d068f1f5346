"""Folds real architectures with bnfold and with other tools, and writes docs/zoo.json and docs/zoo.md.

    python scripts/zoo.py                              the networks of the list, those that are missing in docs/zoo.json
    python scripts/zoo.py --only repvgg_a0 --again     one of them once more
    python scripts/zoo.py timm:resnet50 mobilenetv3_small_100@96x96 torchvision:regnet_y_400mf
    python scripts/zoo.py --no-timing                  counts and errors only

Needs the extra `zoo`. A list is JSON: `[{"model": NAME, "source": "timm" or "torchvision", "input": [1, 3, 64, 64]}]`.
Every network is measured in a process of its own and written as soon as it is done, so a run that was stopped goes on
where it was. The exit status is 1 where bnfold fails, is off (by more than 1e-4, and than the network's own rounding
errors explain), or leaves more than another tool does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import DOCS, machine, write_json
from workers import run
from zoo_models import Entry, add_selection, parse_entry, selection, watched
from zoo_page import TOOLS, page, shortfalls

DATA, PAGE = DOCS / "zoo.json", DOCS / "zoo.md"
NORMALISED = ("timm:vit_tiny_patch16_224", "timm:convnext_atto")  # networks for the table of --norm-affine alone
WORKER = Path(__file__).with_name("zoo_worker.py")
PACKAGES = ("torch", "onnx", "onnx-ir", "onnxruntime", "onnxsim", "onnxslim", "timm", "torchvision")


def measure(entry: Entry, tools: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything there is to know about one network."""
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "source": entry.source,
            "name": entry.name,
            "input": entry.input,
            "seed": arguments.seed,
            "draws": arguments.draws,
            "tools": tools,
            "repeats": 0 if arguments.no_timing else arguments.repeats,
            "shim": arguments.shim,
            "folder": folder,
        }
        result = run(WORKER, task)
        if "error" in result or arguments.no_timing:
            return result
        raw = str(Path(folder) / "raw.onnx")
        peaks = {tool: run(WORKER, {"tool": tool, "path": raw}) for tool in result["seconds"]}
        result["peak_bytes"] = {tool: found["peak_bytes"] for tool, found in peaks.items() if "peak_bytes" in found}
        return result


def normalised(entry: Entry, arguments: argparse.Namespace) -> dict[str, Any]:
    """What `--norm-affine` does to one network; empty where it has no other normalisation."""
    task = {"norm_affine": True, "source": entry.source, "name": entry.name, "input": entry.input}
    return run(WORKER, {**task, "seed": arguments.seed, "shim": arguments.shim})


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a network after tools were measured again, the others left as they were."""
    if "error" in new or "error" in old:
        return dict(new)
    result: dict[str, Any] = {**old, **new}
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(name), dict) and not name.startswith("kept"):
            result[name] = merged(old[name], value)
    return result


def complete(model: Mapping[str, Any], tools: Sequence[str], timed: bool, draws: int = 1) -> bool:
    """Whether everything that is asked for is known of a network."""
    if "error" in model:
        return False
    known = {*model["positive"]["left"], *model["positive"]["failed"]}
    clocked = {*model.get("seconds", {}), "torch", *model["positive"]["failed"]}
    drawn = len(model["positive"].get("draws", [])) >= draws or "bnfold" not in tools
    return set(tools) <= known and drawn and (not timed or set(tools) <= clocked)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_selection(parser)
    parser.add_argument("--tools", default=",".join(TOOLS), help=f"of {','.join(TOOLS)}")
    parser.add_argument("--draws", type=int, default=3, help="draws of weights and statistics to compare outputs on")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each tool to time")
    parser.add_argument("--no-timing", action="store_true", help="counts and errors only")
    parser.add_argument("--again", action="store_true", help="measure what is there already as well")
    arguments = parser.parse_args()
    tools = [tool for tool in TOOLS if tool in arguments.tools.split(",")]
    if unknown := set(arguments.tools.split(",")) - set(TOOLS):
        parser.error(f"no tool is called {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    entries = selection(parser, arguments)
    known: dict[str, Any] = json.loads(DATA.read_text()) if DATA.is_file() else {"models": {}}
    models: dict[str, Any] = known["models"]
    norms: dict[str, Any] = known.setdefault("norm_affine", {})
    known |= {"seed": arguments.seed, "draws": arguments.draws}
    extra = [] if arguments.names or arguments.only else [parse_entry(name) for name in NORMALISED]
    for entry in watched([*entries, *extra]):
        old = models.get(entry.key, {"error": ""})
        asked = arguments.again or not complete(old, tools, not arguments.no_timing, arguments.draws)
        if asked and entry not in extra:
            models[entry.key] = merged(old, measure(entry, tools, arguments))
        if arguments.again or entry.key not in norms or "error" in norms[entry.key]:
            norms[entry.key] = normalised(entry, arguments)
        known["machine"] = machine(*PACKAGES)
        write(known)
    if models:
        write(known)
    missed = shortfalls(models, norms)
    for line in missed:
        print(line, file=sys.stderr)
    return int(bool(missed))


def write(known: Mapping[str, Any]) -> None:
    """Both files, the data first."""
    write_json(DATA, known)
    PAGE.write_text(page(known), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
