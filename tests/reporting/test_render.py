"""The report as text: the verdict first, whole at every width, and no name from a model acts on the terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
import reports
from rich.cells import cell_len
from rich.console import Console

from bnfold.benchmark.latency import Row, Side, Timing
from bnfold.evaluation.accuracy import Accuracy
from bnfold.planning.plan import Plan, Site
from bnfold.reasons import Reason
from bnfold.reporting.render import headline, print_report
from bnfold.reporting.report import FileInfo, Report
from bnfold.statistics.drift import Drift, Layer
from bnfold.verification.localise import SiteError
from bnfold.verification.verify import OutputCheck, Verdict

WIDTHS = (40, 60, 80, 120, 200)

HOSTILE = "bn\x1b[5m\u202eevil\x07[bold]x[/bold]:smile:\n\r\x9b2J\ud800"


def rendered(report: Report, width: int = 80, *, verbose: bool = False, color: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, markup=False, highlight=False, emoji=False,
        force_terminal=color, color_system="truecolor" if color else None,
    )  # fmt: skip
    print_report(report, console, verbose=verbose)
    return stream.getvalue()


def sites(folded: int = 0, merged: int = 0, kept: int = 0) -> Plan:
    made = [Site("a", "BatchNormalization", "folded")] * folded
    made += [Site("b", "BatchNormalization", "merged")] * merged
    made += [Site("c", "BatchNormalization", "kept", (), Reason.IO)] * kept
    return Plan(tuple(made))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"plan": sites(17)}, "17 BatchNorms → 0 (17 folded)"),
        ({"plan": sites(14, 1, 2)}, "17 BatchNorms → 2 (14 folded, 1 merged, 2 kept)"),
        ({"plan": sites(1)}, "1 BatchNorm → 0 (1 folded)"),
        ({"plan": sites(0, 0, 3)}, "3 BatchNorms → 3 (3 kept)"),
        ({"plan": sites()}, "0 BatchNorms: nothing to fold"),
        ({"plan": sites(3), "command": "inspect"}, "3 BatchNorms → 0 (3 would fold)"),
        ({"plan": sites(3), "verification": reports.FAILED}, "3 BatchNorms → 0 (3 folded): REJECTED, a check failed"),
        ({"plan": sites(3), "failures": ("x",)}, "3 BatchNorms → 0 (3 folded): REJECTED, a check failed"),
        ({"plan": None, "command": "verify"}, "The same function on 4 inputs (quick)"),
        ({"plan": None, "command": "verify", "verification": reports.FAILED}, "Not the same function"),
        ({"plan": None, "command": "bench", "verification": None}, "ort: 1.25× faster"),
        (
            {"plan": None, "command": "bench", "verification": None, "benchmark": Timing((reports.SINGLE,), 1)},
            "ort: 1.25 ms",
        ),
    ],
)
def test_the_first_line_is_the_verdict(changes: dict[str, Any], line: str) -> None:
    report = reports.report(**changes)
    assert headline(report).plain == line
    assert rendered(report, 200).splitlines()[0] == line


def test_it_says_everything() -> None:
    text = rendered(reports.report(), 120)
    for part in (
        "ZERO-PAD: the only absorber pads with zeros and the shift has nowhere else to go",
        "bn3",
        "BatchNormalization       3      1      -2",
        "total                    8      5      -3",
        "Verification passed: run on 4 inputs, not proved, largest difference 2.5e-07 of the output's scale",
        "Latency at batch 1 on 2 threads",
        "1.25 ms   1 ms     1.25×    1.200–1.300  0.980–1.020",
        "ort: 1.25× faster",
        "Size 2.05 kB → 1.02 kB",
        "Written to model.onnx",
    ):
        assert part in text
    assert "bn1" not in text


def test_verbose_says_where_everything_went() -> None:
    text = rendered(reports.report(), 120, verbose=True)
    assert re.search(r"bn1 +BatchNormalization +folded +conv1, conv2", text)
    assert re.search(r"bn2 +BatchNormalization +merged +conv3", text)
    assert re.search(r"scale +Mul +folded +conv1", text)
    assert "numpy 2.0" in text
    assert re.search(r"y +1e-06 +2.5e-07", text)


def test_inspect_says_where_everything_would_go() -> None:
    text = rendered(reports.report(command="inspect", plan=sites(31)), 120)
    assert "\nWould fold\n" in text
    assert text.count("  a     BatchNormalization  folded") == 30
    assert "  and 1 more (-v shows them)\n" in text
    text = rendered(reports.report(command="inspect", plan=sites(31)), 120, verbose=True)
    assert text.count("  a     BatchNormalization  folded") == 31
    assert " more (-v" not in text
    assert "Would fold" not in rendered(reports.report(command="inspect", plan=sites(0, 0, 3)))


def test_verbose_says_which_weights_are_copies() -> None:
    plan = Plan((Site("bn", "BatchNormalization", "folded", ("first", "second"), None, ("second",)),))
    assert re.search(r"bn +.* first, second \(a copy\)", rendered(reports.report(plan=plan), 120, verbose=True))


def test_a_reason_is_read_once_however_often_it_applies() -> None:
    plan = Plan(tuple(Site(f"bn{i}", "BatchNormalization", "kept", (), Reason.SHARED_UNIT) for i in range(15)))
    text = rendered(reports.report(plan=plan), 200)
    assert text.count(Reason.SHARED_UNIT.text) == 1
    assert "bn9\n" in text
    assert "bn10\n" not in text
    assert "and 5 more (-v shows them)" in text
    assert "bn14\n" in rendered(reports.report(plan=plan), 200, verbose=True)


def test_a_rejected_model_is_said_to_be_not_written() -> None:
    text = rendered(reports.report(output=None, rejected="model.onnx.rejected", verification=reports.FAILED))
    assert "Not written; left as model.onnx.rejected" in text
    assert "Written to" not in text
    assert "Verification FAILED" in text
    assert "output 'y': the largest difference is 0.5" in text


def test_many_outputs_are_a_table_of_the_worst() -> None:
    outputs = tuple(OutputCheck(f"out{i:02}", i * 1e-6, i * 1e-7) for i in range(30))
    text = rendered(reports.report(verification=Verdict(True, "quick", 4, outputs)), 100)
    assert "Outputs (the worst 10 of 30)" in text
    assert text.index("out29") < text.index("out20")
    assert "out19" not in text
    uncompared = (OutputCheck("a", 1.0, 1.0), OutputCheck("b", None, None))
    text = rendered(reports.report(verification=Verdict(False, "quick", 4, uncompared)), 100)
    assert re.search(r"b +– +–\n +a", text)


def test_what_was_not_verified_is_said_to_be_so() -> None:
    assert "Not verified: --verify off\n" in rendered(reports.report(verification=None))
    assert "Not verified" not in rendered(reports.report())
    assert "Not verified" not in rendered(reports.report(verification=None, command="inspect"))


def test_a_long_path_is_whole() -> None:
    path = "/".join(["folder"] * 60) + "/model.onnx"
    text = rendered(reports.report(output=FileInfo(path, "0"), rejected=path + ".rejected"), 80)
    assert f"Writtento{path}Notwritten;leftas{path}.rejected" in re.sub(r"\s", "", text)


def test_other_affines_are_counted() -> None:
    assert rendered(reports.report()).splitlines()[1] == "  and 1 of 1 other per-channel affines (Mul, Add, Sub, Div)"
    assert "other per-channel" not in rendered(reports.report(plan=sites(3)))


def test_other_normalisations_are_counted_apart() -> None:
    kinds = ("Mul", "LayerNormalization", "LayerNormalization", "RMSNormalization")
    fates = (("folded", None), ("folded", None), ("kept", Reason.NONLINEAR), ("folded", None))
    made = [Site(str(i), kind, *fate[:1], (), fate[1]) for i, (kind, fate) in enumerate(zip(kinds, fates, strict=True))]
    lines = rendered(reports.report(plan=Plan((), tuple(made)))).splitlines()
    assert lines[:3] == [
        "0 BatchNorms",
        "  and 1 of 1 other per-channel affines (Mul, Add, Sub, Div)",
        "  and 2 of 3 scales and biases of other normalisations",
    ]
    assert "scales and biases" not in rendered(reports.report())


def test_a_single_model_has_no_speed_up() -> None:
    timing = Timing((reports.SINGLE,), 8)
    bench = Report("bench", FileInfo("m.onnx", "0"), benchmark=timing, environment={}, operators_before={"Relu": 1})
    text = rendered(bench)
    assert "Latency at batch 8 on 1 thread\n" in text
    assert "speed-up" not in text
    assert "Written" not in text


def test_tails_start_and_memory_stand_in_a_table_of_their_own() -> None:
    side = Side(123.456, 234.567, 345.678, 456.789, 987_654_321)
    rows = (
        replace(reports.ROW, runtime="ort-as-written", before=side, after=replace(side, load_ms=None, peak_bytes=None)),
    )
    lines = rendered(reports.report(benchmark=Timing(rows, 1)), 80, verbose=True).splitlines()
    begin = lines.index("Tails, start and peak memory")
    assert [line.rstrip() for line in lines[begin + 1 : begin + 4]] == [
        "  runtime         model      p90     p99    load  first run  memory",
        "  ort-as-written  before  123 ms  235 ms  346 ms     457 ms  988 MB",
        "  ort-as-written  after   123 ms  235 ms       –     457 ms       –",
    ]
    assert "Tails" not in rendered(reports.report())
    assert "Tails" not in rendered(reports.report(benchmark=Timing(rows, 1)))
    assert "Tails" in rendered(reports.report(benchmark=Timing(rows, 1), command="bench"))


def test_what_takes_seconds_is_said_in_seconds() -> None:
    side = Side(999.4, 999.6, 12_345.6, 65_432.1, None)
    row = replace(reports.ROW, before_ms=1234.5, after_ms=999.4, before=side)
    text = rendered(reports.report(benchmark=Timing((row,), 1)), 120, verbose=True)
    for part in ("1.23 s  999 ms", "999 ms  1 s  12.3 s", "65.4 s"):
        assert part in re.sub(" {2,}", "  ", text)
    assert "e+" not in text


def test_a_gpu_is_named_and_a_noisy_machine_is_warned_of() -> None:
    text = rendered(reports.report(benchmark=Timing((replace(reports.ROW, noise=("this", "that")),), 1, "a GPU")), 120)
    assert "Latency at batch 1 on a GPU\n" in text
    assert (
        "  ort: the machine is noisy (this; that)\n  close other programs, or measure for longer with --min-time\n"
    ) in text
    assert "noisy" not in rendered(reports.report())


def test_a_benchmark_writes_nothing_and_does_not_say_so() -> None:
    assert "Written to" not in rendered(reports.report(command="bench", plan=None, verification=None))


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_lost_or_cut_at_any_width(width: int, verbose: bool) -> None:
    name = "features/block_with_a_long_name/" * 4 + "bn"
    plan = Plan(
        (
            Site(name, "BatchNormalization", "folded", ("conv1",)),
            Site(name, "BatchNormalization", "kept", (), Reason.IO),
        )
    )
    rows = tuple(
        Row(runtime, 16, 123.456, 100.0, 1.2346, 1.2, 12.345, 0.98, 1.02, "1.23× faster")
        for runtime in ("ort", "ort-as-written")
    )
    outputs = (OutputCheck("ω" * 50, 1e-6, 1e-7), OutputCheck("b", None, None))
    report = reports.report(plan=plan, benchmark=Timing(rows, 1), verification=Verdict(True, "quick", 4, outputs))
    text = rendered(report, width, verbose=verbose)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    joined = re.sub(r"\s", "", text)
    for part in ("123ms", "1.200–12.345", "1.235×", "0.980–1.020", "ort-as-written", name, "1e-06"):
        assert part in joined
    assert text.count("ω") == 50


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [40, 200])
def test_no_name_acts_on_the_terminal(width: int, color: bool) -> None:
    sites = tuple(Site(HOSTILE, HOSTILE, status, (HOSTILE,), Reason.IO) for status in ("folded", "merged", "kept"))
    report = reports.report(
        source=FileInfo(HOSTILE, "0"),
        output=FileInfo(HOSTILE, "0"),
        plan=Plan(sites, sites),
        operators_before={HOSTILE: 2},
        operators_after={HOSTILE: 1},
        verification=Verdict(False, "quick", 1, (OutputCheck(HOSTILE, 1.0, 1.0),) * 2, (HOSTILE,), (HOSTILE,)),
        notes=(HOSTILE,),
        rejected=HOSTILE,
    )
    text = rendered(report, width, verbose=True, color=color)
    styles = re.compile(r"\x1b\[[\d;]*m")
    assert (styles.search(text) is not None) is color
    plain = styles.sub("", text)
    assert [char for char in plain if not char.isprintable() and char != "\n"] == []
    assert "[bold]x[/bold]:smile:" in re.sub(r"\s", "", plain)
    assert "\x1b[5m" not in text


def test_off_a_terminal_there_are_no_escapes() -> None:
    stream = io.StringIO()
    print_report(reports.report(), Console(file=stream, width=80))
    assert "\x1b" not in stream.getvalue()


def test_that_every_weight_was_found_is_no_news() -> None:
    all_there = "state dict: 9 matched, 0 missing, 0 unexpected"
    assert all_there not in rendered(reports.report(), 120)
    assert all_there in rendered(reports.report(), 120, verbose=True)
    assert all_there in reports.report().to_dict()["notes"]
    some = "state dict: 9 matched, 0 missing, 2 unexpected"
    assert some in rendered(reports.report(notes=(some,)), 120)


def test_a_value_in_another_unit_does_not_look_like_an_error() -> None:
    site = SiteError("bn", "conv", "Conv", "y", "unit", 0.87, None, None, 1e-8)
    text = rendered(reports.report(verification=Verdict(True, "quick", 4, (), sites=(site,))), 160)
    assert re.search(r"bn +conv +other unit +– +– +– +1e-08", text)
    assert re.search(r"site +operator +state +gap +accumulated +before +local", text)
    assert "0.87" not in text
    apart = replace(site, state="differs")
    assert "0.87" in rendered(reports.report(verification=Verdict(False, "quick", 4, (), sites=(apart,))), 160)


def test_mcnemar_is_told_only_where_predictions_changed() -> None:
    same = Accuracy("top1", "d.npz", 10, 0.9, 0.9, 1.0, 0, 0, 0, 0, 1.0, -0.1, 0.1)
    assert "McNemar" not in rendered(reports.report(accuracy=same), 120)
    moved = replace(same, agreement=0.9, changed=1, lost=1)
    assert "McNemar's exact p = 1" in rendered(reports.report(accuracy=moved), 120)


def test_drift_says_what_its_limit_means() -> None:
    layer = Layer("bn", 4, 0.5, 0.5, 0.1, 2, 0.9)
    text = rendered(reports.report(drift=Drift("d.npz", 64, (layer,))), 300)
    assert (
        "drift: how far the data's mean and spread are from the stored ones, in stored standard deviations; above "
        "0.395 a layer has drifted, less can be chance with 64 rows"
    ) in text
