"""The files of a report from the command line: what is written, when, and what is refused."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import onnx
import pagecases
import pytest
import tiny

from bnfold.cli.app import main
from bnfold.pipeline import line as pipeline

QUICK = ["--verify", "quick", "--no-progress"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.onnx"
    onnx.save(tiny.conv_bn(), path)
    return str(path)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tmp_path


def test_one_run_writes_everything_that_is_asked_for(model: str, folder: Path) -> None:
    flags = ["--html", "r.html", "--markdown", "r.md", "--junit", "r.xml", "--json", "r.json"]
    assert main(["convert", model, "-o", "out.onnx", *flags, *QUICK]) == 0
    assert (folder / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert (folder / "r.md").read_text().startswith("### ✅ Its only BatchNorm folded")
    assert ET.parse(folder / "r.xml").getroot().get("failures") == "0"
    assert json.loads((folder / "r.json").read_text())["picture"]["after"]


def test_report_makes_the_same_page_of_the_json(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", model, "-o", "out.onnx", "--html", "r.html", "--json", "run.json", *QUICK]) == 0
    capsys.readouterr()
    assert main(["report", "run.json"]) == 0
    assert capsys.readouterr().out == "Written to run.html\n"
    assert (folder / "run.html").read_bytes() == (folder / "r.html").read_bytes()
    for suffix in ("md", "xml"):
        assert main(["report", "run.json", "-o", f"run.{suffix}", "-q"]) == 0
        assert capsys.readouterr().out == ""
        assert (folder / f"run.{suffix}").stat().st_size > 0


def test_report_replaces_nothing_unasked(folder: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", model, "--json", "run.json", "--no-progress"]) == 0
    (folder / "run.html").write_text("precious")
    assert main(["report", "run.json"]) == 5
    assert (folder / "run.html").read_text() == "precious"
    assert main(["report", "run.json", "--force"]) == 0
    assert (folder / "run.html").read_text() != "precious"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["report", "nowhere.json"],
            3,
            "error[UNREADABLE]: cannot read nowhere.json: No such file or directory\nCheck the path.\n",
        ),
        (["report", "model.onnx"], 3, "error[UNREADABLE]: model.onnx is no JSON: "),
        (["report", "model.onnx", "-o", "x.pdf"], 2, "error[USAGE]: x.pdf has no suffix that stands for a report\n"),
        (
            ["inspect", "model.onnx", "--graph", "x.png"],
            2,
            "error[USAGE]: --graph x.png has no suffix that stands for a picture\nUse one of: .svg, .mmd, .dot.\n",
        ),
        (["inspect", "model.onnx", "--html", "no/such/r.html"], 5, "error[OUTPUT]: "),
        (
            ["inspect", "model.onnx", "--github"],
            2,
            "error[USAGE]: --github was given, and GITHUB_STEP_SUMMARY is not set\n"
            "GitHub Actions sets it; elsewhere use --markdown FILE.\n",
        ),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    words: list[str], code: int, said: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)


def test_a_rejected_run_is_reported_as_well(model: str, folder: Path) -> None:
    flags = ["--fail-on", "folded>0", "--html", "r.html", "--junit", "r.xml"]
    assert main(["convert", model, "-o", "out.onnx", *flags, *QUICK]) == 1
    assert "Rejected" in (folder / "r.html").read_text()
    assert ET.parse(folder / "r.xml").getroot().get("failures") == "1"


def test_the_summary_of_a_job_grows(model: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    (folder / "summary.md").write_text("before\n")
    for _ in range(2):
        assert main(["inspect", model, "--github", "--no-progress"]) == 0
    text = (folder / "summary.md").read_text()
    assert text.startswith("before\n### ✅ Its only BatchNorm would fold.")
    assert text.count("###") == 2


def test_a_summary_that_cannot_be_written_is_an_error(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder))
    assert main(["inspect", model, "--github", "--no-progress"]) == 5
    assert capsys.readouterr().err == (
        f"error[OUTPUT]: cannot write {folder}: Is a directory\nIt is what GITHUB_STEP_SUMMARY names.\n"
    )


@pytest.mark.parametrize("suffix", ["svg", "mmd", "dot"])
def test_inspect_draws_the_graph(suffix: str, model: str, folder: Path) -> None:
    assert main(["inspect", model, "--graph", f"g.{suffix}", "--no-progress"]) == 0
    assert "folded" in (folder / f"g.{suffix}").read_text()


def test_verify_and_bench_have_pages_too(model: str, folder: Path) -> None:
    onnx.save(tiny.folded(), folder / "after.onnx")
    assert main(["verify", model, "after.onnx", "--html", "v.html", "--no-progress"]) == 0
    assert "Proved to be the same function" in (folder / "v.html").read_text()
    assert main(["bench", model, "after.onnx", "--html", "b.html", "--min-time", "0.05", "--no-progress"]) == 0
    assert 'id="latency"' in (folder / "b.html").read_text()


def test_json_on_stdout_and_a_page_in_a_file(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", model, "--json", "-", "--html", "r.html", "--no-progress"]) == 0
    json.loads(capsys.readouterr().out)
    assert (folder / "r.html").exists()


def test_in_python_a_picture_is_made_when_asked_for(model: str, folder: Path) -> None:
    assert pipeline.inspect(model).picture is None
    assert "picture" not in pipeline.inspect(model).to_dict()
    assert pipeline.inspect(model, picture=True).picture is not None


def test_outputs_of_pytorch_are_drawn_as_well(folder: Path) -> None:
    arch = ["--arch", f"{pagecases.ROOT}/models/architectures.py:mlp"]
    for suffix in ("pt2", "safetensors"):
        words = [
            "convert",
            f"{pagecases.ROOT}/models/mlp.pt",
            *arch,
            "-o",
            f"mlp.{suffix}",
            "--json",
            "run.json",
            *QUICK,
        ]
        assert main(words) == 0
        picture = json.loads((folder / "run.json").read_text())["picture"]
        assert [node["status"] for node in picture["before"] if node["op"] == "BatchNormalization"] == ["folded"] * 2
        assert "BatchNormalization" not in [node["op"] for node in picture["after"]]
