"""What a run says, in the order in which a reader asks: a verdict, the numbers behind it, the fate of every site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnfold.reasons import Reason
from bnfold.reporting.page.words import NONE, milliseconds, number, percent, plural, size, span

Run = Mapping[str, Any]

ADVICE = {reason.code: reason.advice for reason in Reason}

STATUSES = {
    "folded": "folded",
    "merged": "merged",
    "kept": "kept",
    "changed": "weights changed",
    "gone": "gone",
    "new": "new",
    "same": "unchanged",
}


@dataclass(frozen=True)
class Verdict:
    """What a run found, in one sentence.

    Attributes:
        state: `"good"`, `"mixed"` or `"bad"`.
        sentence: The sentence.
        failures: Which checks did not pass, in words.
    """

    state: str
    sentence: str
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Tile:
    """A number worth a glance.

    Attributes:
        title: What it is of.
        value: The number after.
        before: The number before, where it changed.
        note: What to know of it, in a few words.
    """

    title: str
    value: str
    before: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A BatchNorm or another affine, and what became of it.

    Attributes:
        name: Its name.
        op: Its operator type.
        status: Its fate.
        code: The reason for which it stays; empty where it does not.
        text: The same in words.
        into: Operators whose weights changed because of it.
        units: Ranges of its numbers and units; None where they are not known.
    """

    name: str
    op: str
    status: str
    code: str
    text: str
    into: tuple[str, ...]
    units: Mapping[str, Any] | None


def verdict(run: Run) -> Verdict:
    """The run in one sentence."""
    checked = run.get("verification")
    failures = [*((checked or {}).get("failures") or ()), *(run.get("failures") or ())]
    command, passed = run.get("command") or "convert", run.get("passed") is not False
    faster = _faster(run)
    if command in ("convert", "inspect"):
        fate, state = _fate(run, "would fold" if command == "inspect" else "folded")
        if not passed:
            return Verdict(
                "bad",
                f"{'Rejected' if command == 'convert' else 'Failed'}: {fate}, and a check failed.",
                tuple(failures),
            )
        checked_too = "" if command == "inspect" else f"; {_same(checked)}" if checked else "; not verified"
        return Verdict(state, f"{fate}{checked_too}{f'; {faster}' if faster else ''}.", ())
    if command == "verify" and checked:
        return Verdict("good" if passed else "bad", _sentence(_same(checked)), tuple(failures))
    if command == "drift" and run.get("drift"):
        drifted, layers = run["drift"]["drifted"], len(run["drift"]["layers"])
        who = f"None of {plural(layers, 'BatchNorm')}" if not drifted else f"{drifted} of {plural(layers, 'BatchNorm')}"
        state = "bad" if not passed else "mixed" if drifted else "good"
        return Verdict(state, f"{who} drifted from {run['drift']['data']}.", tuple(failures))
    return Verdict("good" if passed else "bad", _sentence(faster or "nothing was measured"), tuple(failures))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _fate(run: Run, verb: str) -> tuple[str, str]:
    counts = run["counts"]
    total, kept = counts.get("batch_norms") or 0, counts.get("kept") or 0
    if not total:
        others = counts.get("affines_folded")
        return (f"No BatchNorm, {plural(others, 'other affine')} {verb}" if others else "No BatchNorm to fold"), "good"
    if not kept:
        who = "Its only BatchNorm" if total == 1 else f"All {total:,} BatchNorms"
        return f"{who} {verb}", "good"
    if kept == total:
        return f"{'Its only BatchNorm stays' if total == 1 else f'All {total:,} BatchNorms stay'}", "mixed"
    stay = "1 stays" if kept == 1 else f"{kept:,} stay"
    return f"{total - kept:,} of {total:,} BatchNorms {verb}, {stay}", "mixed"


def _same(checked: Mapping[str, Any]) -> str:
    if not checked["passed"]:
        return "not the same function" if checked["inputs"] else "cannot be compared"
    if (checked.get("certificate") or {}).get("proved"):
        exported = " as torch exports them" if checked.get("exported") else ""
        return f"proved to be the same function for all inputs{exported}"
    return f"the same function on {plural(checked['inputs'], 'input')}"


def _faster(run: Run) -> str:
    """What may be claimed of the speed: where an interval leaves 1 and the control's."""
    rows = (run.get("benchmark") or {}).get("rows") or ()
    if not rows:
        return ""
    if all(row.get("speedup") is None for row in rows):
        return ", ".join(f"{milliseconds(row['before_ms'])} in {row['runtime']}" for row in rows)
    clear = [row for row in rows if _is_clear(row)]
    return ", ".join(f"{number(row['speedup'])}× as fast in {row['runtime']}" for row in clear) or "as fast as before"


def _is_clear(row: Mapping[str, Any]) -> bool:
    ends = [row.get(key) for key in ("low", "high", "control_low", "control_high", "speedup")]
    if any(end is None for end in ends):
        return False
    low, high, control_low, control_high, _ = ends
    return bool(low > max(1, control_high) or high < min(1, control_low))  # type: ignore[operator, type-var]


def tiles(run: Run) -> list[Tile]:
    """The numbers at the top of the page."""
    counts, found = run["counts"], []
    if counts.get("batch_norms") is not None:
        kept = counts.get("kept")
        if kept is None:
            found.append(Tile("BatchNorms", f"{counts['batch_norms']:,}"))
        else:
            found.append(Tile("BatchNorms", f"{kept:,}", f"{counts['batch_norms']:,}"))
    if counts.get("nodes_before") is not None:
        after = counts.get("nodes_after")
        both = after is not None
        found.append(
            Tile(
                "Operators",
                f"{after if both else counts['nodes_before']:,}",
                f"{counts['nodes_before']:,}" if both else "",
            )
        )
    if counts.get("bytes_after") is not None:
        found.append(Tile("Size", size(counts["bytes_after"]), size(counts.get("bytes_before"))))
    checked = run.get("verification")
    if checked:
        found.append(_difference(checked))
    for row in ((run.get("benchmark") or {}).get("rows") or ())[:2]:
        if row.get("speedup") is not None:
            interval = span((row.get("low"), row.get("high")))
            found.append(Tile(f"Speed, {row['runtime']}", f"{number(row['speedup'])}×", "", interval))
    accuracy = run.get("accuracy")
    if accuracy:
        share = percent if accuracy["metric"] in ("top1", "top5") else number
        before, after = share(accuracy["before"]), share(accuracy["after"])
        found.append(Tile(accuracy["metric"], after, before, "as before" if before == after else ""))
    return found


def _difference(checked: Mapping[str, Any]) -> Tile:
    outputs = checked.get("outputs") or ()
    ratios = [output["ratio"] for output in outputs if output.get("ratio") is not None]
    if ratios:
        return Tile("Rounding error", f"{max(ratios):.2f}×", "", "of the original's")
    rel = [output["rel"] for output in outputs if output.get("rel") is not None]
    return Tile("Largest difference", number(max(rel)) if rel else NONE, "", "of the output's scale")


def rows(run: Run) -> list[Row]:
    """Every BatchNorm; where no plan says what became of it, whether it is still there."""
    if run["sites"]:
        return [_row(site) for site in run["sites"]]
    picture = run.get("picture") or {}
    norms = [node for node in picture.get("before") or () if node["op"] == "BatchNormalization"]
    known = picture.get("after") is not None
    fate = {"gone": "gone"} if known else {}
    return [
        Row(n["name"], n["op"], fate.get(n["status"], "kept" if known else "same"), "", "", (), None) for n in norms
    ]


def affines(run: Run) -> list[Row]:
    """The other per-channel affines."""
    return [_row(site) for site in run.get("affines") or ()]


def _row(site: Mapping[str, Any]) -> Row:
    reason = site.get("reason") or {"code": "", "text": ""}
    return Row(
        site["name"], site["op"], site["status"], reason["code"], reason["text"], tuple(site["into"]), site.get("units")
    )
