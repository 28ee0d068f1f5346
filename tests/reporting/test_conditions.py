"""`--fail-on`: what reads, what does not, and that nothing passes unmeasured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import reports

from bnfold.benchmark.latency import Row, Timing
from bnfold.errors import UsageError
from bnfold.planning.plan import Plan, Site
from bnfold.reasons import Reason
from bnfold.reporting.conditions import (
    MEASURES,
    METRICS,
    Condition,
    check_measurable,
    failures,
    measured,
    parse_condition,
)
from bnfold.reporting.report import FileInfo, Report
from bnfold.verification.verify import OutputCheck, Verdict


def row(low: float | None, speedup: float | None = 1.1) -> Row:
    return Row("ort", 1, 1.0, 1.0, speedup, low, 1.2, 0.98, 1.02, "")


def report(**changes: object) -> Report:
    plan = Plan(
        (Site("a", "BatchNormalization", "folded"), Site("b", "BatchNormalization", "kept", (), Reason.NONLINEAR))
    )
    verdict = Verdict(True, "quick", 4, (OutputCheck("y", 1e-7, 1e-8), OutputCheck("z", 2e-6, 3e-6)))
    made = {
        "plan": plan,
        "operators_before": {"BatchNormalization": 2, "Relu": 3},
        "operators_after": {"BatchNormalization": 1, "Relu": 3},
        "verification": verdict,
        "benchmark": Timing((row(0.99), row(1.05)), 1),
    }
    return Report("convert", FileInfo("m.onnx", "0"), environment={}, **(made | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kept>0", ("kept", ">", 0.0)),
        (" error.rel >= 1e-5 ", ("error.rel", ">=", 1e-5)),
        ("speedup.low<0.98", ("speedup.low", "<", 0.98)),
        ("top1.delta<-0.001", ("top1.delta", "<", -0.001)),
        ("folded==17", ("folded", "==", 17.0)),
        ("kept!=1", ("kept", "!=", 1.0)),
        ("kept<=1", ("kept", "<=", 1.0)),
    ],
)
def test_a_condition_reads(text: str, expected: tuple[str, str, float]) -> None:
    assert parse_condition(text) == Condition(text, *expected)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "--fail-on '' is not METRIC>NUMBER"),
        ("kept", "--fail-on 'kept' is a metric without a bound"),
        ("left", "--fail-on 'left' is not METRIC>NUMBER"),
        ("kept=0", "--fail-on 'kept=0' is not METRIC>NUMBER"),
        ("kept>", "--fail-on 'kept>' is not METRIC>NUMBER"),
        ("kept>0 or folded<1", "--fail-on 'kept>0 or folded<1' is not METRIC>NUMBER"),
        ("kept>zero", "--fail-on 'kept>zero': 'zero' is not a number"),
        ("kept>nan", "--fail-on 'kept>nan': 'nan' is not a number"),
        ("left>0", "--fail-on 'left>0': no metric is called 'left'"),
    ],
)
def test_a_condition_that_does_not_read_is_a_usage_error(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_condition(text)
    assert caught.value.what == what


def test_a_misspelt_metric_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        parse_condition("error.rell>0")
    assert caught.value.hint.startswith("Did you mean error.rel? There are: batch_norms, folded, ")


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("kept>0", "--fail-on kept>0: kept is 1"),
        ("kept>1", ""),
        ("kept>=1", "--fail-on kept>=1: kept is 1"),
        ("folded<1", ""),
        ("nodes_after>4", ""),
        ("nodes_after>3", "--fail-on nodes_after>3: nodes_after is 4"),
        ("error.rel>1e-6", "--fail-on error.rel>1e-6: error.rel is 3e-06"),
        ("error.rel>1e-5", ""),
        ("error.max_abs>1e-6", "--fail-on error.max_abs>1e-6: error.max_abs is 2e-06"),
        ("speedup.low<1", "--fail-on speedup.low<1: speedup.low is 0.99"),
        ("speedup.low<0.98", ""),
        ("speedup.median<1.2", "--fail-on speedup.median<1.2: speedup.median is 1.1"),
        (
            "error.ratio>4",
            "--fail-on error.ratio>4: error.ratio was not measured (verify does, and convert with --verify full)",
        ),
        ("top1.delta<-1", "--fail-on top1.delta<-1: top1.delta was not measured (--data with --metric top1 does)"),
        ("bytes_after>1", "--fail-on bytes_after>1: bytes_after was not measured (convert does)"),
    ],
)
def test_a_condition_is_judged_on_every_value(text: str, failure: str) -> None:
    assert parse_condition(text).failure(report()) == failure


def test_a_metric_alone_is_what_the_shell_left_of_a_condition() -> None:
    with pytest.raises(UsageError) as caught:
        parse_condition("speedup.low")
    assert caught.value.what == "--fail-on 'speedup.low' is a metric without a bound"
    assert caught.value.hint == ("Quote it, as the shell takes > and < for redirections: --fail-on 'speedup.low>0'")


def test_every_metric_is_measured_by_some_command() -> None:
    for metric in METRICS:
        assert any(metric.partition(".")[0] in groups for groups in MEASURES.values()), metric


def test_what_a_command_never_measures_is_refused() -> None:
    check_measurable([parse_condition("kept>0"), parse_condition("batch_norms>9")], "inspect")
    with pytest.raises(UsageError) as caught:
        check_measurable([parse_condition("kept>0"), parse_condition("error.rel>1e-5")], "inspect")
    assert caught.value.what == "--fail-on error.rel>1e-5: inspect does not measure error.rel"
    assert caught.value.hint == "Measured by: bnfold convert, bnfold verify."


def test_what_was_not_measured_fails() -> None:
    bare = report(verification=None, benchmark=None, plan=None, operators_after=None)
    for text in ("error.rel>1e9", "speedup.low<0", "kept>1000", "nodes_after>1e9"):
        assert " was not measured" in parse_condition(text).failure(bare)
    single = report(benchmark=Timing((row(None, None),), 1))
    assert parse_condition("speedup.low<0").failure(single) == (
        "--fail-on speedup.low<0: speedup.low was not measured (bench of two models does, and convert --bench)"
    )


def test_what_was_measured_in_part_fails() -> None:
    half = report(verification=Verdict(False, "quick", 1, (OutputCheck("y", 0.0, 0.0), OutputCheck("z", None, None))))
    assert measured(half, "error.rel") == []
    assert (
        parse_condition("error.rel>1")
        .failure(half)
        .endswith("was not measured (verify does, and convert with --verify full)")
    )


def test_every_condition_is_judged() -> None:
    conditions = [parse_condition(text) for text in ("kept>0", "kept>5", "error.ratio>4")]
    assert len(failures(conditions, report())) == 2
    assert failures([], report()) == ()


@pytest.mark.parametrize("sign", ["<", "<=", ">", ">=", "==", "!="])
def test_what_is_not_a_number_fails_whatever_is_asked(sign: str) -> None:
    strange = report(verification=Verdict(True, "full", 1, (OutputCheck("y", 0.0, 0.0, 0.0, 0.0, float("nan")),)))
    assert " was not measured" in parse_condition(f"error.ratio{sign}4").failure(strange)


def test_an_infinite_error_exceeds_every_bound() -> None:
    far = report(verification=Verdict(False, "full", 1, (OutputCheck("y", 0.0, float("inf")),)))
    assert parse_condition("error.rel>1e300").failure(far) == "--fail-on error.rel>1e300: error.rel is inf"


def test_every_metric_can_be_measured_and_missed() -> None:
    """So that none is in the list that nothing ever measures."""
    bare = Report("bench", FileInfo("m.onnx", "0"), environment={}, operators_before=None)
    full = reports.report(
        accuracy=reports.ACCURACY,
        drift=reports.DRIFT,
        verification=Verdict(True, "full", 4, (OutputCheck("y", 1e-6, 1e-7, 1e-7, 1e-7, 1.0),)),
    )
    top5 = replace(full, accuracy=replace(reports.ACCURACY, metric="top5"))
    for metric in METRICS:
        assert measured(bare, metric) == []
        assert measured(top5 if metric.startswith("top5") else full, metric) != [], metric
        assert f"{metric} was not measured (" in parse_condition(f"{metric}>0").failure(bare)
