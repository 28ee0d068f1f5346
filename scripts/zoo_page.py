"""`docs/zoo.md`: the tables made of `docs/zoo.json`."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pages import paragraph

from bnfold.reasons import Reason

TOOLS = ("torch", "onnxsim", "onnxslim", "onnxruntime", "bnfold")
LARGEST_DIFFERENCE = 1e-4
LARGEST_RATIO = 4  # of rounding errors, where the unfolded network's own exceed that
LARGE_LOGIT = 1e3  # beyond it a Softmax picks the largest
LARGEST_DOUBLE = 1e-9  # in float64, where a fold is the same function or it is not
VARIANTS = {"positive": "all gammas positive", "negative": "15 % of the gammas negative"}
ERRORS = ("difference", "rounding_before", "rounding_after", "double")
REASONS = {reason.code: reason for reason in Reason}


def page(data: Mapping[str, Any]) -> str:
    """The whole page."""
    models: dict[str, Any] = data["models"]
    parts = [
        "# The zoo",
        "",
        *paragraph(
            "Written by `scripts/zoo.py` from `zoo.json`. Each network is built with drawn weights and the "
            "statistics of a trained one (gamma 0.5 to 1.5, beta and mean of σ 0.3, variance 0.5 to 2) and exported by "
            "`torch.onnx.export(dynamo=True, optimize=False)`; its arithmetic on constants is folded by onnxscript, "
            "because behind the bias that torch computes at run time for a convolution without one, most tools fold "
            "nothing. Then the same bytes go through every tool with its defaults. `torch` is what the exporter's own "
            "optimisation, on by default, makes of the same export, and `onnxruntime` its basic rewriting "
            "(`ORT_ENABLE_BASIC`), saved."
        ),
        *paragraph(f"Measured on {data['machine']}; {_seeds(data)}."),
        *_failures(models),
        *(line for variant, title in VARIANTS.items() for line in _norms_table(models, variant, title)),
        *_kept_table(models),
        *_rounding(models),
        *_norm_affine_table(data.get("norm_affine", {})),
        *_nodes_table(models),
        *_cost_table(models),
    ]
    return "\n".join(parts).rstrip() + "\n"


def shortfalls(models: Mapping[str, Any], norm_affine: Mapping[str, Any]) -> list[str]:
    """Where bnfold misses what is asked of it: every network works, is right, and keeps no more than the best other."""
    found = [f"{name}, --norm-affine: {entry['error']}" for name, entry in norm_affine.items() if "error" in entry]
    for name, model in models.items():
        if "error" in model:
            found.append(f"{name}: {model['error']}")
            continue
        for variant, title in VARIANTS.items():
            outcome = model[variant]
            if "bnfold" in outcome["failed"]:
                found.append(f"{name}, {title}: {outcome['failed']['bnfold']}")
            if "bnfold" not in outcome["left"]:
                continue
            left = max(outcome["left"]["bnfold"], *(draw.get("left", 0) for draw in outcome.get("draws", ())))
            others = {tool: count for tool, count in outcome["left"].items() if tool != "bnfold"}
            best = min(others, key=lambda tool: others[tool], default=None)
            if best is not None and others[best] < left:
                found.append(f"{name}, {title}: bnfold leaves {left} ({_codes(outcome)}), {best} {others[best]}")
            wrong = [draw for draw in outcome.get("draws", ()) if not _right(draw)]
            found += [f"{name}, {title}: difference {draw['difference']}" for draw in wrong]
    return found


def _right(draw: Mapping[str, Any]) -> bool:
    """Whether bnfold's model is the same function.

    In float64 it must be, and in float32 as closely as this network's own rounding errors let one see it.
    """
    if isinstance(draw["difference"], str) or not draw["double"] <= LARGEST_DOUBLE:
        return False
    close: bool = (
        draw["difference"] <= LARGEST_DIFFERENCE or draw["rounding_after"] <= LARGEST_RATIO * draw["rounding_before"]
    )
    return close


def _seeds(data: Mapping[str, Any]) -> str:
    first, draws = data["seed"], data["draws"]
    return (
        f"seed {first}"
        if draws == 1
        else f"counts, nodes and times of seed {first}, errors of seeds {first} to {first + draws - 1}"
    )


def _failures(models: Mapping[str, Any]) -> list[str]:
    """Networks that could not be measured, and tools that failed on one."""
    lines = [f"- {name}: {model['error']}" for name, model in models.items() if "error" in model]
    for name, model in _measured(models).items():
        for variant, title in VARIANTS.items():
            outcome = model[variant]
            lines += [f"- {name}, {title}: {tool}: {text}" for tool, text in outcome["failed"].items()]
            found = [draw["difference"] for draw in outcome.get("draws", []) if isinstance(draw["difference"], str)]
            lines += [f"- {name}, {title}: {text}" for text in found]
    return ["What failed:", "", *lines, ""] if lines else []


def _measured(models: Mapping[str, Any]) -> dict[str, Any]:
    return {name: model for name, model in models.items() if "error" not in model}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), "|---" + "|--:" * (len(head) - 1) + "|", *map(_row, rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _norms_table(models: Mapping[str, Any], variant: str, title: str) -> list[str]:
    rows = []
    total: Counter[str] = Counter()
    best = 0
    for name, model in _measured(models).items():
        outcome = model[variant]
        left = outcome["left"]
        total.update({"norms": outcome["norms"], **left})
        best += min((count for tool, count in left.items() if tool != "bnfold"), default=outcome["norms"])
        counts = [str(left.get(tool, "–")) for tool in TOOLS]
        rows.append(
            [
                f"`{name}`",
                _size(model["input"]),
                str(outcome["norms"]),
                *counts,
                *_errors(outcome.get("draws", [])),
            ]
        )
    rows.append(["**all**", "", f"{total['norms']:,}", *(f"**{total[tool]:,}**" for tool in TOOLS), *[""] * 5])
    return [
        f"## BatchNorms left, {title}",
        "",
        *paragraph(
            f"The best of the other tools, network by network, leaves {best:,} of {total['norms']:,}. The last columns "
            "are about bnfold: the largest difference between an output of its model and the unfolded one's, as a part "
            "of the output's scale, both run by onnxruntime with every optimisation off, as median and maximum over "
            "the draws; the most that separates the unfolded model (the worse of onnxruntime and torch) and bnfold's "
            "from the network run in float64; and the largest difference where the network is made float64 first, "
            "folded, and both are run in float64."
        ),
        *_table(["network", "input", "BatchNorms", *TOOLS, "difference", "max", "before", "after", "in float64"], rows),
    ]


def _kept_table(models: Mapping[str, Any]) -> list[str]:
    rows = []
    used: dict[str, None] = {}
    for name, model in _measured(models).items():
        cells = [_codes(model[variant]) for variant in VARIANTS]
        used |= dict.fromkeys(code for variant in VARIANTS for code in model[variant].get("kept", {}))
        if any(cells):
            rows.append([f"`{name}`", *(cell or "–" for cell in cells)])
    if not rows:
        return []
    return [
        "## What bnfold keeps, and why",
        "",
        *_table(["network", *VARIANTS.values()], rows),
        *(f"- `{code}`: {REASONS[code].text}." for code in used),
        "",
        "The name and the reason of every single one stand in `zoo.json`.",
        "",
    ]


def _codes(outcome: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} × `{code}`" for code, count in outcome.get("kept", {}).items())


def _rounding(models: Mapping[str, Any]) -> list[str]:
    """What there is to say about networks in which float32 differs by more than is asked for."""
    draws = {
        name: [draw for variant in VARIANTS for draw in model[variant].get("draws", [])]
        for name, model in _measured(models).items()
    }
    loud = {
        name: found
        for name, found in draws.items()
        if any(isinstance(d["difference"], float) and d["difference"] > LARGEST_DIFFERENCE for d in found)
    }
    if not loud:
        return []
    lines = []
    for name, found in loud.items():
        above = sum(draw["difference"] > LARGEST_DIFFERENCE for draw in found)
        closer = sum(draw["rounding_after"] <= draw["rounding_before"] for draw in found)
        apart = ", ".join(f"{draw['difference']:.1e} ({draw['runtimes']:.1e})" for draw in found)
        text = (
            f"- `{name}`: {above} of {len(found)} draws above; bnfold's model is the closer to float64 in {closer}. "
            "The differences, and in brackets how far torch and onnxruntime are apart on the unfolded network: "
            f"{apart}."
        )
        if (logit := max(draw["logit"] for draw in found)) > LARGE_LOGIT:
            text += (
                f" What goes into a Softmax reaches {logit:.1e}, where neighbouring float32 numbers are "
                f"{np.spacing(np.float32(logit)):.1e} apart: it picks the largest, and rounding says which of two that "
                "are nearly equal. Drawn statistics do not normalise: the variance by which a BatchNorm divides is not "
                "that of its input, so a residual stream grows from block to block, and the logits with its square. A "
                "trained network divides by what it has, and keeps its logits small."
            )
        lines += textwrap.wrap(text, 140, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [
        "## Networks that magnify rounding errors",
        "",
        *paragraph(
            f"Some draws differ by more than {LARGEST_DIFFERENCE:.0e} in float32, although the function is the same, "
            "as the column *in float64* shows. There the unfolded network is itself as far from its value in float64: "
            "what a fold changes is how it is rounded, and that is magnified."
        ),
        *lines,
        "",
    ]


def _norm_affine_table(norms: Mapping[str, Any]) -> list[str]:
    entries = {name: entry for name, entry in norms.items() if entry and "error" not in entry}
    if not entries:
        return []
    rows = [
        [
            f"`{name}`",
            _size(entry["input"]),
            str(entry["affines"]),
            str(entry["folded"]),
            _codes(entry) or "–",
            str(entry["nodes_plain"]),
            str(entry["nodes"]),
            _error(entry["difference"]),
        ]
        for name, entry in entries.items()
    ]
    total = [sum(entry[key] for entry in entries.values()) for key in ("affines", "folded")]
    return [
        "## Scales and biases of other normalisations (`--norm-affine`)",
        "",
        *paragraph(
            "LayerNormalization, RMSNormalization, GroupNormalization and InstanceNormalization with one number per "
            "channel, drawn like those of the BatchNorms: how many have a scale or bias, how many of these fold into "
            "what reads them, why the others stay, the number of nodes without and with the option, and the "
            "difference in float32. The networks of the list that are missing here have none."
        ),
        *_table(["network", "input", "affines", "folded", "kept", "nodes without", "nodes with", "difference"], rows),
        *paragraph(f"Together {total[1]} of {total[0]}."),
    ]


def _nodes_table(models: Mapping[str, Any]) -> list[str]:
    rows = [
        [f"`{name}`", str(model["positive"]["nodes_before"])]
        + [str(model["positive"]["nodes"].get(tool, "–")) for tool in TOOLS]
        for name, model in _measured(models).items()
    ]
    return ["## Nodes", "", *_table(["network", "before", *TOOLS], rows)]


def _cost_table(models: Mapping[str, Any]) -> list[str]:
    timed = {name: model for name, model in _measured(models).items() if model.get("seconds")}
    if not timed:
        return []
    tools = [tool for tool in TOOLS if any(tool in model["seconds"] for model in timed.values())]
    seconds = {name: {t: statistics.median(v) for t, v in model["seconds"].items()} for name, model in timed.items()}
    peaks = {name: model.get("peak_bytes", {}) for name, model in timed.items()}
    rows = []
    for name, model in timed.items():
        cells = [f"{1e3 * seconds[name][tool]:.0f}" if tool in seconds[name] else "–" for tool in tools]
        cells += [f"{peaks[name][tool] / 1e6:.0f}" if tool in peaks[name] else "–" for tool in tools]
        rows.append([f"`{name}`", f"{model['bytes'] / 1e6:.0f}", *cells])
    rows.append(
        ["**median**", "", *(_median(seconds, t, 1e3) for t in tools), *(_median(peaks, t, 1e-6) for t in tools)]
    )
    runs = max(len(v) for model in timed.values() for v in model["seconds"].values())
    head = ["network", "MB in", *(f"{tool}, ms" for tool in tools), *(f"{tool}, MB" for tool in tools)]
    return [
        "## Time and memory",
        "",
        *paragraph(
            f"The same bytes in, bytes out; median of {runs} runs in rounds of random order in one process. Memory is "
            "the largest resident set in a process of its own, less what the process had after its imports and one "
            "call on a model of two nodes, without the bytes that came in."
        ),
        *_table(head, rows),
    ]


def _median(values: Mapping[str, Mapping[str, float]], tool: str, unit: float) -> str:
    found = [unit * each[tool] for each in values.values() if tool in each]
    return f"**{statistics.median(found):.0f}**" if found else "–"


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _errors(draws: Sequence[Mapping[str, Any]]) -> list[str]:
    """Median and maximum of the difference, the largest rounding errors before and after, and in float64."""
    if not draws:
        return ["–"] * 5
    if any(isinstance(draw["difference"], str) for draw in draws):
        return ["see above", *["–"] * 4]
    columns = {
        key: [draw[key] for draw in draws] for key in ("difference", "rounding_before", "rounding_after", "double")
    }
    return [_error(statistics.median(columns["difference"])), *(_error(max(values)) for values in columns.values())]


def _error(error: float | None) -> str:
    return "–" if error is None else f"{error:.1e}"
