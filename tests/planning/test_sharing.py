from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold import fold
from bnfold.errors import UsageError
from bnfold.pipeline.line import convert, inspect
from bnfold.planning.sharing import budget_bytes
from tests.frontends.onnx_case import Case


def siamese(inputs: int = 2, channels: int = 3) -> onnx.ModelProto:
    """One convolution on several inputs, each with a BatchNorm of its own."""
    c = Case(dtype=np.float32)
    w = c.draw(4, channels, 1)
    xs = [c.input("N", channels, 6, name=f"x{i}") for i in range(inputs)]
    return c.model(*(c.bn(c.op("Conv", x, w, label=f"conv{i}"), 4) for i, x in enumerate(xs)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    onnx.save(siamese(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(
    ("duplicate", "stored", "budget"),
    [
        ("never", 10**9, 0),
        ("auto", 10**6, 10**6),
        ("auto", 2 * 10**7, 10**6),
        ("auto", 10**8, 5 * 10**6),
        ("always", 0, math.inf),
    ],
)
def test_what_copies_may_cost(duplicate: str, stored: int, budget: float) -> None:
    assert budget_bytes(duplicate, stored) == budget


def test_a_wrong_word_is_answered_before_any_work(tmp_path: Path) -> None:
    for command in (convert, inspect):
        with pytest.raises(UsageError) as caught:
            command(tmp_path / "there_is_no_such_file.onnx", duplicate="allways")
        assert str(caught.value) == (
            "error[USAGE]: weights can be copied never, auto or always, not 'allways'\n"
            "Did you mean always? Pass --duplicate auto, or leave it out."
        )


def test_the_report_says_what_was_copied(saved: Path) -> None:
    report = convert(saved)
    assert report.passed
    assert report.counts()["kept"] == 0
    assert report.notes == (
        "1 operator got a weight of its own instead of a shared one, 48 bytes more in all (--duplicate never: none)",
    )
    assert [site.get("copies") for site in report.to_dict()["sites"]] == [None, ["conv1"]]
    assert inspect(saved).notes == report.notes


def test_several_copies_of_some_size_are_counted(tmp_path: Path) -> None:
    onnx.save(siamese(inputs=3, channels=10_000), tmp_path / "model.onnx")
    assert inspect(tmp_path / "model.onnx").notes == (
        "2 operators got weights of their own instead of a shared one, 0.3 MB more in all (--duplicate never: none)",
    )


def test_never_leaves_no_note(saved: Path) -> None:
    report = inspect(saved, duplicate="never")
    assert report.counts()["kept"] == 1
    assert report.notes == ()


def test_fold_takes_it_too() -> None:
    assert [fold(siamese(), duplicate=word).plan.kept for word in ("never", "auto", "always")] == [1, 0, 0]
