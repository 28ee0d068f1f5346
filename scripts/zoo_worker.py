"""One measurement of the zoo, in a process that `workers.run` starts.

A task either measures a network (builds it, exports it, runs every tool on the same bytes) or the peak memory of one
tool on bytes that lie in a file.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from workers import serve
from zoo_errors import batch_norms, errors, worst
from zoo_models import Entry, build, draw_normalisations, export, import_shim
from zoo_tools import TOOLS, warm_up

from bnfold.frontends.normalisations import CHANNEL_AXIS
from bnfold.running.runners import OrtRunner

EXAMPLES = 2  # inputs to compare on
VARIANTS = {"positive": 0.0, "negative": 0.15}
TORCH = "torch"  # its exporter is no function of bytes: it optimises its own raw export


def measure_network(task: Mapping[str, Any]) -> dict[str, Any]:
    """What the tools leave of one network, with gammas positive and with some negative.

    The tools are compared on the first draw; bnfold's result is compared with the network on each.

    Args:
        task: `source`, `name`, `input`, `seed`, `draws`, `tools`, `repeats` (0: no timing), `shim`, `folder` for the
            raw export.
    """
    entry = _entry(task)
    result: dict[str, Any] = {}
    for variant, negative in VARIANTS.items():
        seeds = range(task["seed"], task["seed"] + task["draws"])
        module, example = build(entry, seed=task["seed"], negative=negative)
        program = export(module, example, optimize=False)
        exported = program.model_proto
        raw = with_constants_folded(exported)
        made: dict[str, bytes | str] = {}
        if TORCH in task["tools"]:
            program.optimize()  # what torch.onnx.export does by default after exporting
            made[TORCH] = program.model_proto.SerializeToString()
        made |= {tool: _attempt(TOOLS[tool], raw) for tool in task["tools"] if tool in TOOLS}
        result |= {"input": list(example.shape), "bytes": len(raw)}
        result[variant] = {"norms": batch_norms(exported), **_outcome(raw, made)}
        if isinstance(folded := made.get("bnfold"), bytes):
            first = errors(raw, folded, module, _examples(example))
            others = [_errors_of(exported, entry, seed, negative) for seed in seeds[1:]]
            result[variant]["draws"] = [first, *others]
        if variant == "positive":
            (Path(task["folder"]) / "raw.onnx").write_bytes(raw)
    if task["repeats"]:
        working = [t for t in task["tools"] if t in TOOLS and not result["positive"]["failed"].get(t)]
        data = (Path(task["folder"]) / "raw.onnx").read_bytes()
        result["seconds"] = _seconds(working, data, task["repeats"], task["seed"])
    return result


def _entry(task: Mapping[str, Any]) -> Entry:
    import_shim(task["shim"])
    return Entry(task["source"], task["name"], tuple(task["input"]) if task["input"] else None)


def _examples(first: torch.Tensor) -> list[torch.Tensor]:
    return [first, *(torch.randn_like(first) for _ in range(EXAMPLES - 1))]


def _errors_of(exported: onnx.ModelProto, entry: Entry, seed: int, negative: float) -> dict[str, Any]:
    """What separates bnfold's model from another draw of a network that was exported already."""
    module, example = build(entry, seed=seed, negative=negative)
    raw = with_constants_folded(with_weights(exported, module))
    folded = _attempt(TOOLS["bnfold"], raw)
    return {"difference": folded} if isinstance(folded, str) else errors(raw, folded, module, _examples(example))


def with_weights(exported: onnx.ModelProto, module: torch.nn.Module) -> onnx.ModelProto:
    """An export with the weights of another module of the same class."""
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    state = module.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    return model


def measure_norm_affines(task: Mapping[str, Any]) -> dict[str, Any]:
    """How many scales and biases of other normalisations `--norm-affine` folds, drawn as those of BatchNorms are.

    Args:
        task: `source`, `name`, `input`, `seed`, `shim`.

    Returns:
        Nothing where a network has none; else `input`, `affines`, `folded`, `kept` (number by reason), `nodes` with
        and `nodes_plain` without the option, and `difference`, an error of float32 as in `errors`.
    """
    import bnfold

    module, example = build(_entry(task), seed=task["seed"])
    if not draw_normalisations(module):
        return {}
    raw = with_constants_folded(export(module, example, optimize=False).model_proto)
    before = onnx.load_from_string(raw)
    plain, folded = bnfold.fold(before), bnfold.fold(before, norm_affine=True)
    kinds = set(CHANNEL_AXIS)
    affines = [site for site in folded.plan.affines if site.op in kinds]
    if not affines:
        return {}
    reasons = Counter(site.reason.code for site in affines if site.reason is not None)
    runners = [OrtRunner(model.SerializeToString(), optimize=False) for model in (before, folded.model)]
    [name] = runners[0].input_names
    outputs = [[list(runner.run({name: example.numpy()}).values())] for runner in runners]
    return {
        "input": list(example.shape),
        "affines": len(affines),
        "folded": sum(site.status != "kept" for site in affines),
        "kept": dict(reasons),
        "nodes": len(folded.model.graph.node),
        "nodes_plain": len(plain.model.graph.node),
        "difference": worst(*outputs),
    }


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
        outcome["left"][tool] = batch_norms(after)
        outcome["nodes"][tool] = len(after.graph.node)
    folded = made.get("bnfold")
    if isinstance(folded, bytes):
        import onnx_ir

        from bnfold.frontends.onnx import fold_model

        kept = [site for site in fold_model(onnx_ir.from_proto(before))[1].sites if site.reason is not None]
        outcome["kept"] = dict(Counter(site.reason.code for site in kept if site.reason is not None).most_common())
        outcome["kept_sites"] = {site.name: site.reason.code for site in kept if site.reason is not None}
    return outcome


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
    if "tool" in task:
        return measure_memory(task)
    return measure_norm_affines(task) if task.get("norm_affine") else measure_network(task)


if __name__ == "__main__":
    serve(measure)
