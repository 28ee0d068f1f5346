"""The sections of the page as data: cells in words, marks by their place on an axis. None is a section without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnfold.reporting.page.facts import STATUSES, Row, Run
from bnfold.reporting.page.plots import linear_axis, log_axis
from bnfold.reporting.page.words import NONE, milliseconds, number, percent, plural, size, span
from bnfold.reporting.sitewords import LEGEND, NUMBERS, STATES, gap_shown

INTO_SHOWN = 4
FIRST_WEIGHTS = 12
SITES_SHOWN = 40

Section = dict[str, Any]


def site_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of a table of sites."""
    return [
        {
            "name": row.name,
            "op": row.op,
            "status": row.status,
            "label": "unchanged" if row.status == "same" else STATUSES.get(row.status, row.status),
            "code": row.code,
            "text": row.text,
            "into": _into(row.into),
            "s": span((row.units or {}).get("s")),
            "t": span((row.units or {}).get("t")),
            "s_sort": _middle((row.units or {}).get("s")),
            "t_sort": _middle((row.units or {}).get("t")),
        }
        for row in rows
    ]


def _into(names: Sequence[str]) -> str:
    more = f" and {len(names) - INTO_SHOWN} more" if len(names) > INTO_SHOWN else ""
    return ", ".join(names[:INTO_SHOWN]) + more


def _middle(ends: Sequence[float | None] | None) -> str:
    if ends is None or any(end is None for end in ends):
        return ""
    return f"{(ends[0] + ends[1]) / 2:.6g}"  # type: ignore[operator]


def lead(run: Run, sites: Sequence[Mapping[str, Any]]) -> str:
    """What stands above the table of BatchNorms."""
    if not run["sites"]:
        return "What became of each is read from the two graphs, since the second was not made here."
    found = [f"{sum(row['status'] == status for row in sites)} {status}" for status in ("folded", "merged", "kept")]
    kinds = [text for text in found if not text.startswith("0 ")]
    return f"{', '.join(kinds)}. Each multiplied its channels by s and added t; the range is over the channels."


def errors(run: Run) -> Section | None:
    """The error of every output, and of every site where that was measured."""
    checked = run.get("verification")
    if not checked or not checked.get("outputs"):
        return None
    outputs = checked["outputs"]
    exact = [output for output in outputs if output.get("error_before") is not None]
    axis = log_axis([out[key] for out in exact for key in ("error_before", "error_after")]) if exact else None
    rows = [
        {
            "name": output["name"],
            "x": axis.at(output.get("error_before")) if axis else None,
            "y": axis.at(output.get("error_after")) if axis else None,
            "before": number(output.get("error_before")),
            "after": number(output.get("error_after")),
            "ratio": number(output.get("ratio")),
            "max_abs": number(output["max_abs"]),
            "rel": number(output["rel"]),
        }
        for output in outputs
    ]
    said = f"Compared on {plural(checked['inputs'], 'input')}, run operator by operator as written."
    measured = " Both models against the original in float64." if axis else ""
    per_site = checked.get("sites") or ()
    return {
        "lead": said + measured,
        "axis": axis,
        "rows": rows,
        "notes": checked.get("notes") or (),
        "per_site": [_site_error(row) for row in per_site[:SITES_SHOWN]],
        "per_site_columns": _columns("value", "state", *(f"-{name}" for name in NUMBERS)),
        "per_site_legend": LEGEND,
    }


def _site_error(row: Mapping[str, Any]) -> list[str]:
    name = row.get("site") or row.get("node") or row.get("value") or NONE
    return [
        str(name),
        STATES.get(str(row.get("state")), NONE),
        *(number(gap_shown(row.get("state"), row.get(key)) if key == "gap" else row.get(key)) for key in NUMBERS),
    ]


def latency(run: Run) -> Section | None:
    """The forest plot of the runtimes."""
    timing = run.get("benchmark")
    if not timing or not timing.get("rows"):
        return None
    rows = timing["rows"]
    paired = any(row.get("speedup") is not None for row in rows)
    ends = [row.get(key) for row in rows for key in ("low", "high", "control_low", "control_high", "speedup")]
    axis = linear_axis(ends, 1.0)
    threads = plural(rows[0]["threads"], "thread")
    columns = ["before", "after", "speed-up", "95 %"] if paired else ["median"]
    tails = any(row.get("before") for row in rows)
    columns += ["p90", "p99"] if tails else []
    return {
        "lead": f"Batch {timing['batch']}, {threads}. Medians of rounds in random order; a gain is claimed where the "
        "interval leaves 1 and the control.",
        "paired": paired,
        "axis": axis,
        "columns": columns,
        "rows": [_timed(row, axis, columns) for row in rows],
        "verdicts": [f"{row['runtime']}: {row['verdict']}" for row in rows if row.get("speedup") is not None],
        "warnings": timing.get("warnings") or (),
    }


def _timed(row: Mapping[str, Any], axis: Any, columns: Sequence[str]) -> dict[str, Any]:
    low, high = axis.at(row.get("control_low")), axis.at(row.get("control_high"))
    cells = {
        "median": milliseconds(row["before_ms"]),
        "before": milliseconds(row["before_ms"]),
        "after": milliseconds(row.get("after_ms")),
        "speed-up": f"{number(row.get('speedup'))}×",
        "95 %": span((row.get("low"), row.get("high"))),
        **{f"p{tail}": _tail(row, f"p{tail}_ms") for tail in (90, 99)},
    }
    return {
        "name": row["runtime"],
        "note": plural(row["threads"], "thread") + (f", {row['device']}" if row.get("device", "cpu") != "cpu" else ""),
        "x": axis.at(row.get("speedup")),
        "low": axis.at(row.get("low")),
        "high": axis.at(row.get("high")),
        "control": None if low is None or high is None else (low, round(high - low, 2)),
        "cells": [(column, cells[column]) for column in columns],
    }


def _tail(row: Mapping[str, Any], key: str) -> str:
    sides = [row[side][key] for side in ("before", "after") if row.get(side)]
    return " → ".join(number(side) for side in sides) + " ms" if sides else NONE


def accuracy(run: Run) -> Section | None:
    """What both models are worth on data."""
    found = run.get("accuracy")
    if not found:
        return None
    share = percent if found["metric"] in ("top1", "top5") else number
    facts = [("before", share(found["before"])), ("after", share(found["after"])), ("change", f"{found['delta']:+.4g}")]
    if found.get("folded_only") is not None:
        facts.append(("folded, not recalibrated", share(found["folded_only"])))
    if found.get("agreement") is not None:
        facts.append(("same prediction", percent(found["agreement"])))
        facts.append(("changed", f"{number(found.get('changed'))}, of which {number(found.get('ties'))} are ties"))
    if found.get("p") is not None and found.get("changed"):
        facts.append(("McNemar's exact p", number(found["p"])))
        facts.append(("95 % interval of the change", span((found.get("low"), found.get("high")))))
    flips = None
    if found.get("lost") is not None and found.get("gained") is not None:
        right = round(found["before"] * found["n"]) - found["lost"]
        flips = (right, found["lost"], found["gained"], found["n"] - right - found["lost"] - found["gained"])
    return {
        "lead": f"{found['metric']} on {plural(found['n'], 'row')} of {found['data']}.",
        "facts": facts,
        "flips": flips,
    }


def layers(run: Run) -> list[Section]:
    """Drift of the stored statistics, and what recalibration replaced."""
    found = []
    columns = _columns("BatchNorm", "-drift", "-mean", "-spread", "-worst channel")
    for key, title in (("drift", "Drift"), ("recalibration", "Recalibration")):
        part = run.get(key)
        if not part:
            continue
        rows = [
            [row["name"], *(number(row[name]) for name in ("drift", "mean_shift", "spread", "worst"))]
            for row in part["layers"]
        ]
        rows_of = f"{plural(part['n'], 'row')} of {part['data']}"
        said = f"How far the stored statistics are from those of {rows_of}, in standard deviations."
        if "limit" in part:
            noise = "neither sampling noise nor what mini-batches do in training"
            said += f" From {number(part['limit'])} on it is {noise}."
        found.append({"key": key, "title": title, "lead": said, "columns": columns, "rows": rows})
    return found


def weights(run: Run) -> Section | None:
    """Ranges of the weights per channel, the operators whose spread grew most first."""
    found = (run.get("picture") or {}).get("weights")
    if not found:
        return None
    rows = []
    for weight in found:
        before, after = weight.get("before"), weight["after"]
        after = before if after == "same" else after
        lost = [_lost(side) for side in (before, after)]
        grown = (lost[1] or 0.0) - (lost[0] or 0.0)
        rows.append((weight, before, after, lost, grown))
    values = [q for _, before, after, _, _ in rows for side in (before, after) if side for q in side["quantiles"]]
    axis = log_axis(values)
    cells = [_weight_row(axis, *row[:4]) for row in sorted(rows, key=lambda row: -row[4])]
    return {
        "lead": "What a quantiser cares about: with one scale for a whole weight, the median channel loses "
        "log₂(largest ÷ median) bits to the largest. Operators where that grew most come first.",
        "axis": axis,
        "rows": cells,
        "first": FIRST_WEIGHTS,
    }


def _weight_row(axis: Any, weight: Run, before: Any, after: Any, lost: Sequence[float | None]) -> dict[str, Any]:
    moved = weight.get("moved")
    fate = "new" if before is None else "gone" if after is None else "reshaped" if moved is None else percent(moved, 1)
    sides = [None if side is None else [axis.at(q) or 0.0 for q in side["quantiles"]] for side in (before, after)]
    return {
        "name": weight["name"],
        "note": f"{weight['op']} {'×'.join(map(str, (after or before)['shape']))}",
        "before": sides[0],
        "after": sides[1],
        "lost_before": NONE if lost[0] is None else f"{lost[0]:.1f}",
        "lost_after": NONE if lost[1] is None else f"{lost[1]:.1f}",
        "moved": "0" if moved == 0 else fate,
    }


def _lost(side: Mapping[str, Any] | None) -> float | None:
    if side is None:
        return None
    median, largest = side["quantiles"][2], side["quantiles"][4]
    return math.log2(largest / median) if median and largest and median > 0 and largest > 0 else None


def operators(run: Run) -> Section | None:
    """Operators by type, before and after."""
    counted = run.get("operators") or {}
    before, after = counted.get("before"), counted.get("after")
    if not before:
        return None
    if not after:
        return {"columns": _columns("type", "-count"), "rows": [[op, f"{n:,}"] for op, n in before.items()]}
    kinds = [*before, *(op for op in after if op not in before)]
    rows = [(op, before.get(op, 0), after.get(op, 0)) for op in kinds]
    rows.append(("total", sum(before.values()), sum(after.values())))
    cells = [[op, f"{old:,}", f"{new:,}", f"{new - old:+,}" if new != old else ""] for op, old, new in rows]
    return {"columns": _columns("type", "-before", "-after", "-change"), "rows": cells}


def environment(run: Run) -> list[tuple[str, str]]:
    """Files with their hashes, versions and machine."""
    source, output, machine = run["source"], run.get("output"), run.get("environment") or {}
    found = [("model", source["path"]), ("format", source.get("format") or NONE), ("SHA-256", source["sha256"])]
    if output:
        found += [("second model" if run.get("command") in ("verify", "bench") else "written to", output["path"])]
        found += [("its SHA-256", output["sha256"])]
    if run.get("rejected"):
        found.append(("left as", run["rejected"]))
    counts = run["counts"]
    if counts.get("bytes_before") is not None:
        found.append(
            ("size", " → ".join(size(counts[key]) for key in ("bytes_before", "bytes_after") if counts.get(key)))
        )
    found += [(key, str(machine[key])) for key in ("cpu", "cores", "platform", "python") if machine.get(key)]
    packages = [f"{name} {version}" for name, version in (machine.get("packages") or {}).items() if version]
    return [*found, ("packages", ", ".join(packages)), ("bnfold", str(run.get("bnfold") or NONE))]


def _columns(*names: str) -> list[tuple[str, str]]:
    """Titles and kinds of columns; a minus in front makes one of numbers."""
    return [(name[1:], "n") if name.startswith("-") else (name, "") for name in names]
