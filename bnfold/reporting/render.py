"""A report as text for people: rich renderables that hold from 40 columns up, on a terminal and in a pipe.

Names inside a model come from whoever made it, and may hold terminal escapes, bidirectional overrides or markup: they
reach the screen through `printable` only, and inside a `Text`, which reads no markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.benchmark.latency import Timing
from bnfold.evaluation.accuracy import Accuracy
from bnfold.loading.weights import is_no_news
from bnfold.planning.plan import Plan, Site
from bnfold.reporting.report import Report
from bnfold.reporting.sitewords import LEGEND, NUMBERS, STATES, gap_shown
from bnfold.statistics.drift import Drift, Layer
from bnfold.statistics.recalibrate import Recalibration
from bnfold.verification.localise import SiteError
from bnfold.verification.verify import Verdict
from bnfold.wording import printable

LONGEST_NAME = 200

LONGEST_SENTENCE = 1000

OUTPUTS_SHOWN = 10

SITES_SHOWN = 10

KEPT_SHOWN = 10

FOLDED_SHOWN = 30

INDENT = 2

FOLD_WIDTH = 12  # a column of names or sentences may be wrapped to this width before the table becomes a list


@dataclass(frozen=True)
class Column:
    """A column of a table: numbers stand on the right and are never cut, words may wrap."""

    title: str
    number: bool = False


def print_report(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Prints a report, its verdict first.

    Args:
        report: What to print.
        console: Where to; its width decides the layout.
        verbose: Also the sites that fold, every output, and the environment.
    """
    console.print(headline(report))
    if report.plan is not None:
        _print_affines(report.plan, console)
        _print_kept(report.plan, console, verbose)
        if verbose or report.command == "inspect":
            gone = [site for site in report.plan.sites if site.status != "kept"]
            _print_sites("Folded" if report.command == "convert" else "Would fold", gone, console, verbose)
        if verbose:
            _print_sites("Other affines", report.plan.affines, console, verbose)
    if report.operators_after is not None or verbose:
        _print_operators(report, console)
    if report.verification is not None:
        _print_verification(report.verification, console, verbose)
    elif report.command == "convert":
        console.print()
        console.print(Text("Not verified: --verify off", style="yellow"))
    if report.benchmark is not None:
        _print_benchmark(report.benchmark, console, sides=verbose or report.command == "bench")
    if report.drift is not None:
        _print_drift(report.drift, console, verbose)
    if report.recalibration is not None:
        _print_recalibration(report.recalibration, console, verbose)
    if report.accuracy is not None:
        _print_accuracy(report.accuracy, console)
    _print_notes(report, console, verbose)
    _print_files(report, console)


def headline(report: Report) -> Text:
    """The verdict in one line."""
    if report.plan is not None:
        line = _fold_headline(report.plan, would=report.command != "convert")
        good = report.plan.kept == 0
    elif report.verification is not None:
        good = report.verification.passed
        different = "Not the same function" if report.verification.comparable else "Cannot be compared"
        line = _same_function(report.verification) if good else different
    elif report.drift is not None:
        good = report.drift.drifted == 0
        what = "none of" if good else f"{report.drift.drifted} of"
        line = f"{what} {_norms(len(report.drift.layers))} drifted from {report.drift.data}"
        line = line[:1].upper() + line[1:]
    else:
        good = True
        rows = report.benchmark.rows if report.benchmark else ()
        line = "; ".join(f"{row.runtime}: {_ms(row.before_ms) if row.speedup is None else row.verdict}" for row in rows)
    if report.command == "convert" and not report.passed:
        return Text(f"{line}: REJECTED, a check failed", style="bold red")
    return Text(line, style="bold green" if good else "bold red" if report.plan is None else "bold yellow")


def _fold_headline(plan: Plan, *, would: bool) -> str:
    noun = "BatchNorm" if plan.batch_norms == 1 else "BatchNorms"
    if not plan.batch_norms:
        others = any(site.status == "folded" for site in plan.affines)
        return f"0 {noun}" if others else f"0 {noun}: nothing to fold"
    fold, merge = ("would fold", "would merge") if would else ("folded", "merged")
    parts = [(plan.folded, fold), (plan.merged, merge), (plan.kept, "kept")]
    said = ", ".join(f"{count} {word}" for count, word in parts if count)
    return f"{plan.batch_norms} {noun} → {plan.kept} ({said})"


def _print_affines(plan: Plan, console: Console) -> None:
    norms = [site for site in plan.affines if site.op.endswith("Normalization")]
    others = [site for site in plan.affines if site not in norms]
    for sites, what in (
        (others, "other per-channel affines (Mul, Add, Sub, Div)"),
        (norms, "scales and biases of other normalisations"),
    ):
        folded = sum(site.status != "kept" for site in sites)
        if folded:
            print_sentence(f"and {folded} of {len(sites)} {what}", console)


def _print_kept(plan: Plan, console: Console, verbose: bool) -> None:
    """The sites that stay, by reason, so that a reason is read once however often it applies."""
    kept: dict[str, list[Site]] = {}
    for site in plan.sites:
        if site.status == "kept" and site.reason is not None:
            kept.setdefault(site.reason.code, []).append(site)
    if not kept:
        return
    _print_title("Kept", console)
    for code, sites in kept.items():
        assert sites[0].reason is not None
        print_sentence(f"{code}: {sites[0].reason.text}", console)
        shown = sites if verbose else sites[:KEPT_SHOWN]
        for site in shown:
            console.print(Padding(Text(printable(site.name, LONGEST_NAME)), (0, 0, 0, 2 * INDENT), expand=False))
        if len(shown) < len(sites):
            more = Text(f"and {len(sites) - len(shown)} more (-v shows them)", style="dim")
            console.print(Padding(more, (0, 0, 0, 2 * INDENT), expand=False))


def _print_sites(title: str, sites: Sequence[Site], console: Console, verbose: bool) -> None:
    rows = []
    for site in sites if verbose else sites[:FOLDED_SHOWN]:
        into = ", ".join(f"{name} (a copy)" if name in site.copies else name for name in site.into)
        rows.append((site.name, site.op, site.reason.code if site.reason else site.status, into))
    _print_table(title, [Column("name"), Column("op"), Column("fate"), Column("into")], rows, console)
    if len(rows) < len(sites):
        print_sentence(f"and {len(sites) - len(rows)} more (-v shows them)", console, "dim")


def _print_operators(report: Report, console: Console) -> None:
    before = dict(report.operators_before or {})
    if report.operators_after is None:
        rows = [(op, str(count)) for op, count in before.items()]
        return _print_table("Operators", [Column("op"), Column("count", True)], rows, console)
    after = dict(report.operators_after)
    ops = [*before, *(op for op in after if op not in before)]
    counted = [(op, before.get(op, 0), after.get(op, 0)) for op in ops]
    counted.append(("total", sum(before.values()), sum(after.values())))
    rows4 = [(op, str(old), str(new), f"{new - old:+d}" if new != old else "") for op, old, new in counted]
    columns = [Column("op"), Column("before", True), Column("after", True), Column("change", True)]
    return _print_table("Operators", columns, rows4, console)


def _same_function(verdict: Verdict) -> str:
    if verdict.proved:
        return f"The same function: {verdict.extent}; run on {_inputs(verdict)} as well"
    return f"The same function on {_inputs(verdict)} ({verdict.level})"


def _print_verification(verdict: Verdict, console: Console, verbose: bool) -> None:
    state, style = ("passed", "green") if verdict.passed else ("FAILED", "red")
    console.print()
    console.print(Text.assemble(("Verification ", "bold"), (state, style), f": {verdict.found}"))
    for sentence in verdict.failures:
        print_sentence(sentence, console, "red")
    for sentence in verdict.notes:
        print_sentence(sentence, console)
    if len(verdict.outputs) > 1 or verbose:
        _print_outputs(verdict, console, verbose)
    if verdict.sites:
        _print_errors(verdict.sites, console, verbose)


def _print_outputs(verdict: Verdict, console: Console, verbose: bool) -> None:
    shown = sorted(verdict.outputs, key=lambda output: -(output.rel if output.rel is not None else float("inf")))
    shown = shown if verbose else shown[:OUTPUTS_SHOWN]
    title = (
        f"Outputs (the worst {len(shown)} of {len(verdict.outputs)})"
        if len(shown) < len(verdict.outputs)
        else "Outputs"
    )
    rows = [(output.name, _float(output.max_abs), _float(output.rel)) for output in shown]
    _print_table(title, [Column("output"), Column("max |Δ|", True), Column("of scale", True)], rows, console)


def _print_errors(sites: Sequence[SiteError], console: Console, verbose: bool) -> None:
    shown = sites if verbose else sites[:SITES_SHOWN]
    rest = len(sites) - len(shown)
    title = f"Error at every site (the worst {len(shown)} of {len(sites)})" if rest else "Error at every site"
    columns = [Column("site"), Column("operator"), Column("state")]
    columns += [Column(name, True) for name in NUMBERS]
    rows = [
        (
            site.site or site.value,
            site.node,
            STATES[site.state],
            *(
                _float(value, 2)
                for value in (gap_shown(site.state, site.gap), site.accumulated, site.before, site.local)
            ),
        )
        for site in shown
    ]
    _print_table(title, columns, rows, console)
    if rest:
        print_sentence(f"and {rest} more; -v lists all", console, "dim")
    print_sentence(LEGEND, console, "dim")


def _print_benchmark(timing: Timing, console: Console, *, sides: bool) -> None:
    single = all(row.after_ms is None for row in timing.rows)
    columns = [Column("runtime"), Column("before", True)]
    if not single:
        columns += [Column("after", True), Column("speed-up", True), Column("95 % interval", True)]
    columns.append(Column("control", True))
    rows = []
    for row in timing.rows:
        cells = [row.runtime, _ms(row.before_ms)]
        if not single:
            cells += [_ms(row.after_ms), f"{_float(row.speedup, 4)}×", _interval(row.low, row.high)]
        rows.append([*cells, _interval(row.control_low, row.control_high)])
    threads = timing.rows[0].threads if timing.rows else 0
    where = timing.gpu or f"{threads} thread{'' if threads == 1 else 's'}"
    _print_table(f"Latency at batch {timing.batch} on {where}", columns, rows, console)
    for row in timing.rows if not single else ():
        print_sentence(f"{row.runtime}: {row.verdict}", console)
    print_sentence("control: the model before against itself", console, "dim")
    if sides:
        _print_sides(timing, console)
    for sentence in timing.warnings:
        print_sentence(sentence, console, "yellow")
    if timing.warnings:
        print_sentence("close other programs, or measure for longer with --min-time", console, "yellow")


def _print_sides(timing: Timing, console: Console) -> None:
    rows = [
        (
            row.runtime,
            model,
            _ms(side.p90_ms),
            _ms(side.p99_ms),
            _ms(side.load_ms),
            _ms(side.first_ms),
            "–" if side.peak_bytes is None else _size(side.peak_bytes),
        )
        for row in timing.rows
        for model, side in (("before", row.before), ("after", row.after))
        if side is not None
    ]
    numbers = ("p90", "p99", "load", "first run", "memory")
    columns = [Column("runtime"), Column("model"), *(Column(title, number=True) for title in numbers)]
    _print_table("Tails, start and peak memory", columns, rows, console)


def _print_accuracy(found: Accuracy, console: Console) -> None:
    rows = [
        (found.metric, _share(found.before, found.metric), _share(found.after, found.metric), f"{found.delta:+.4g}")
    ]
    if found.folded_only is not None:
        rows.append(("not recalibrated", "", _share(found.folded_only, found.metric), ""))
    columns = [Column("metric"), Column("before", True), Column("after", True), Column("change", True)]
    _print_table(f"Accuracy on {found.n} rows of {found.data}", columns, rows, console)
    if found.agreement is not None:
        said = f"the same prediction for {100 * found.agreement:.4g} % of the rows"
        ties = f"; {found.ties} of the {found.changed} others {'is a tie' if found.ties == 1 else 'are ties'}"
        print_sentence(f"{said}{f'{ties} within the error allowed' if found.changed else ''}", console)
    if found.p is not None and found.low is not None and found.high is not None and found.changed:
        print_sentence(
            f"{found.lost} right before and wrong after, {found.gained} the other way round: McNemar's exact "
            f"p = {found.p:.3g}, 95 % interval of the change {found.low:+.3g} to {found.high:+.3g}",
            console,
        )


def _print_drift(found: Drift, console: Console, verbose: bool) -> None:
    _print_layers("Drift", found.layers, console, verbose)
    print_sentence(
        f"drift: how far the data's mean and spread are from the stored ones, in stored standard deviations; above "
        f"{found.limit:.3g} a layer has drifted, less can be chance with {found.n} rows",
        console,
        "dim",
    )
    if found.drifted:
        advice = "bnfold convert --recalibrate DATA takes the statistics from such data"
        print_sentence(f"{advice}; measure with --data whether that is better", console)


def _print_recalibration(found: Recalibration, console: Console, verbose: bool) -> None:
    _print_layers("Recalibrated: how far the stored statistics were off", found.layers, console, verbose)
    passes = "1 pass" if found.passes == 1 else f"{found.passes} passes"
    print_sentence(f"from {found.n} rows of {found.data}, layer by layer in {passes}", console)


def _print_layers(title: str, layers: Sequence[Layer], console: Console, verbose: bool) -> None:
    shown = layers if verbose else layers[:OUTPUTS_SHOWN]
    if len(shown) < len(layers):
        title = f"{title} (the worst {len(shown)} of {len(layers)})"
    rows = [
        (layer.name, _float(layer.drift), _float(layer.mean_shift), _float(layer.spread), _float(layer.worst))
        for layer in shown
    ]
    columns = [Column("BatchNorm"), Column("drift", True), Column("mean", True), Column("spread", True)]
    _print_table(title, [*columns, Column("worst channel", True)], rows, console)


def _norms(count: int) -> str:
    return "1 BatchNorm" if count == 1 else f"{count} BatchNorms"


def _share(value: float, metric: str) -> str:
    return f"{100 * value:.2f} %" if metric in ("top1", "top5") else f"{value:.6g}"


def _print_notes(report: Report, console: Console, verbose: bool) -> None:
    notes = [note for note in report.notes if verbose or not is_no_news(note)]
    if verbose:
        notes += [f"{key}: {value}" for key, value in report.environment.items() if not isinstance(value, dict)]
        packages = report.environment.get("packages", {})
        notes.append(", ".join(f"{name} {number}" for name, number in packages.items() if number))
    if notes:
        _print_title("Notes", console)
    for note in notes:
        print_sentence(note, console)


def _print_files(report: Report, console: Console) -> None:
    if report.command == "verify" or report.bytes_after is None:
        return
    console.print()
    if report.bytes_before is not None:
        console.print(Text(f"Size {_size(report.bytes_before)} → {_size(report.bytes_after)}"))
    if report.output is not None and report.command == "convert":
        console.print(Text(f"Written to {printable(report.output.path, LONGEST_SENTENCE)}", style="bold"))
    if report.rejected is not None:
        console.print(Text(f"Not written; left as {printable(report.rejected, LONGEST_SENTENCE)}", style="bold red"))


def print_sentence(sentence: str, console: Console, style: str = "") -> None:
    """Prints a sentence, indented and wrapped, whatever names stand in it."""
    text = Text(printable(sentence, LONGEST_SENTENCE), style=style)
    console.print(Padding(text, (0, 0, 0, INDENT), expand=False))


def _print_title(title: str, console: Console) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _print_table(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], console: Console) -> None:
    """A titled table; where it does not fit the width, one `column  value` line per cell."""
    if not rows:
        return
    cells = [[printable(cell, LONGEST_NAME) for cell in row] for row in rows]
    _print_title(title, console)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    if _narrowest(columns, cells) <= console.width - INDENT:
        for column in columns:
            table.add_column(
                Text(column.title),
                justify="right" if column.number else "left",
                no_wrap=column.number,
                overflow="fold",
            )
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
    else:
        table.show_header = False
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for index, row in enumerate(cells):
            for column, cell in zip(columns, row, strict=True):
                if cell:
                    table.add_row(Text(column.title), Text(cell))
            if index < len(cells) - 1:
                table.add_row("", "")
    console.print(Padding(table, (0, 0, 0, INDENT), expand=False))


def _narrowest(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    total = 0
    for index, column in enumerate(columns):
        widest = max(cell_len(text) for text in [column.title, *(row[index] for row in rows)])
        total += (widest if column.number else min(widest, FOLD_WIDTH)) + 2
    return total - 2


def _inputs(verdict: Verdict) -> str:
    return f"{verdict.inputs} input{'' if verdict.inputs == 1 else 's'}"


def _float(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g} ms" if value < 999.5 else f"{value / 1000:.3g} s"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"
