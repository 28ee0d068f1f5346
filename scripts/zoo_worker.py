"""One measurement of the zoo, in a process that `workers.run` starts.

A task either measures a network (builds it, exports it, runs every tool on the same bytes) or the peak memory of one
tool on bytes that lie in a file.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree
from workers import serve
from zoo_tools import TOOLS, warm_up

EXAMPLES = 4  # inputs to compare on
Outputs = list[list[NDArray[Any]]]  # per input, per output
VARIANTS = {"positive": 0.0, "negative": 0.15}
TORCH = "torch"  # its exporter is no function of bytes: it optimises its own raw export


def measure_network(task: Mapping[str, Any]) -> dict[str, Any]:
    """What the tools leave of one network, with gammas positive and with some negative.

    Args:
        task: `source`, `name`, `input`, `seed`, `tools`, `repeats` (0: no timing), `shim`, `folder` for the raw export.
    """
    from zoo_models import Entry, build, export, import_shim

    import_shim(task["shim"])
    entry = Entry(task["source"], task["name"], tuple(task["input"]) if task["input"] else None)
    result: dict[str, Any] = {}
    raw: dict[str, bytes] = {}
    for variant, negative in VARIANTS.items():
        module, example = build(entry, seed=task["seed"], negative=negative)
        examples = [example, *(torch.randn_like(example) for _ in range(EXAMPLES - 1))]
        program = export(module, example, optimize=False)
        norms = _norms(program.model_proto)
        raw[variant] = with_constants_folded(program.model_proto)
        made: dict[str, bytes | str] = {}
        if TORCH in task["tools"]:
            program.optimize()  # what torch.onnx.export does by default after exporting
            made[TORCH] = program.model_proto.SerializeToString()
        for tool in task["tools"]:
            if tool in TOOLS:
                made[tool] = _attempt(TOOLS[tool], raw[variant])
        result |= {"input": list(example.shape), "bytes": len(raw[variant])}
        result[variant] = {"norms": norms, **_outcome(raw[variant], made)}
        if isinstance(made.get("bnfold"), bytes):
            result[variant] |= _errors(raw[variant], made["bnfold"], module, examples)
    (Path(task["folder"]) / "raw.onnx").write_bytes(raw["positive"])
    if task["repeats"]:
        working = [t for t in task["tools"] if t in TOOLS and not result["positive"]["failed"].get(t)]
        result["seconds"] = _seconds(working, raw["positive"], task["repeats"], task["seed"])
    return result


def with_constants_folded(model: onnx.ModelProto) -> bytes:
    """A raw export without its arithmetic on constants, by onnxscript.

    torch gives a convolution without a bias one that is computed at run time; behind it only torch and bnfold fold
    anything, so the others would be measured by what the exporter makes up.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript import optimizer

    opened = onnx_ir.from_proto(model)
    optimizer.fold_constants(opened)
    RemoveUnusedNodesPass()(opened)
    data: bytes = onnx_ir.to_proto(opened).SerializeToString()
    return data


def _attempt(tool: Callable[[bytes], bytes], data: bytes) -> bytes | str:
    """What a tool makes of a model, or in what words it failed."""
    try:
        return tool(data)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _outcome(raw: bytes, made: Mapping[str, bytes | str]) -> dict[str, Any]:
    """Counts of what each tool made, and what bnfold kept and changed."""
    before = onnx.load_from_string(raw)
    outcome: dict[str, Any] = {
        "nodes_before": len(before.graph.node),
        "left": {},
        "nodes": {},
        "failed": {},
    }
    for tool, data in made.items():
        if isinstance(data, str):
            outcome["failed"][tool] = data
            continue
        after = onnx.load_from_string(data)
        outcome["left"][tool] = _norms(after)
        outcome["nodes"][tool] = len(after.graph.node)
    folded = made.get("bnfold")
    if isinstance(folded, bytes):
        import onnx_ir

        from bnfold.frontends.onnx import plan_model

        kept = [site for site in plan_model(onnx_ir.from_proto(before)).sites if site.reason is not None]
        outcome["kept"] = dict(Counter(site.reason.code for site in kept if site.reason is not None).most_common())
        outcome["kept_sites"] = {site.name: site.reason.code for site in kept if site.reason is not None}
    return outcome


def _norms(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def _errors(before: bytes, after: bytes, module: torch.nn.Module, examples: list[torch.Tensor]) -> dict[str, Any]:
    """Largest differences of an output as a part of the output's scale, over some inputs, the models run as written.

    `difference` is between both models. `rounding_before` and `rounding_after` are what separates each from the network
    run in float64 by torch: of a network that magnifies rounding errors, no float32 model is any closer to another.
    """
    from bnfold.compare import difference
    from bnfold.runners import OrtRunner

    try:
        runners = [OrtRunner(data, optimize=False) for data in (before, after)]
        [input_name] = runners[0].input_names
        outputs = [[list(r.run({input_name: x.numpy()}).values()) for x in examples] for r in runners]
    except Exception as error:
        return {"difference": str(error)}
    with torch.no_grad():
        single = [_tensors(module(x)) for x in examples]
        double = [_tensors(module.double()(x.double())) for x in examples]

    def worst(one: Outputs, other: Outputs) -> float | None:
        arrays = zip(itertools.chain(*one), itertools.chain(*other), strict=True)
        found = [difference(a.astype(np.float64), b.astype(np.float64)).rel for a, b in arrays]
        return None if None in found else max(rel for rel in found if rel is not None)

    found, after = worst(outputs[0], outputs[1]), worst(double, outputs[1])
    before = [worst(double, outputs[0]), worst(double, single)]
    if found is None or after is None or None in before:
        return {"difference": "outputs cannot be compared: shapes or non-finite elements differ"}
    return {"difference": found, "rounding_before": max(b for b in before if b is not None), "rounding_after": after}


def _tensors(output: Any) -> list[NDArray[Any]]:
    """The tensors that a network returns, alone, in containers or by name, in order."""
    return [leaf.numpy() for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _seconds(tools: list[str], data: bytes, repeats: int, seed: int) -> dict[str, list[float]]:
    """Seconds of each tool on the same bytes, in rounds of random order; the garbage collector rests meanwhile."""
    taken: dict[str, list[float]] = {tool: [] for tool in tools}
    shuffle = random.Random(seed)
    for _ in range(repeats):
        for tool in shuffle.sample(tools, len(tools)):
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            TOOLS[tool](data)
            taken[tool].append(time.perf_counter() - start)
            gc.enable()
    return taken


def measure_memory(task: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes that one tool needs at most, above what it has after its imports and one call on a model of two nodes.

    Args:
        task: `tool` and `path` of the model.
    """
    warm_up(task["tool"])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark
    baseline = _status_kib("VmRSS")
    TOOLS[task["tool"]](Path(task["path"]).read_bytes())
    return {"peak_bytes": 1024 * (_status_kib("VmHWM") - baseline)}


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measure(task: Mapping[str, Any]) -> dict[str, Any]:
    return measure_memory(task) if "tool" in task else measure_network(task)


if __name__ == "__main__":
    serve(measure)
