"""Defaults of flags that stand in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from bnfold.cli.app import app, main
from bnfold.cli.defaults import SAID_EACH_TIME, Defaults, defaults
from bnfold.errors import UsageError

FLAGS = {
    "convert": {"fail-on": True, "leftover": False, "threads": False, "norm-affine": False},
    "bench": {"threads": False, "runtime": False, "fail-on": True},
}


def found(folder: Path, text: str, name: str = "bnfold.toml") -> Mapping[str, Mapping[str, Any]]:
    (folder / name).write_text(text)
    return defaults(FLAGS, folder).values


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert defaults(FLAGS, tmp_path) == Defaults()


def test_a_pyproject_that_does_not_speak_of_bnfold_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.bnfold]\nthreads = 3\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "pyproject.toml").write_text("[tool.ruff]\nline-length = 120\n")
    in_force = defaults(FLAGS, tmp_path / "inner")
    assert in_force.path == str(tmp_path / "pyproject.toml")
    assert in_force.values["bench"] == {"threads": 3}


def test_a_damaged_pyproject_without_defaults_is_not_for_bnfold_to_report(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff\n")
    assert defaults(FLAGS, tmp_path) == Defaults()


@pytest.mark.parametrize("text", ["[tool.bnfold\n", "[tool.ruff]\n[tool.bnfold\n", "[tool.bnfold]\nx = 1\nx = 2\n"])
def test_a_damaged_pyproject_does_not_lose_its_defaults_in_silence(tmp_path: Path, text: str) -> None:
    line = text.count("\n")
    with pytest.raises(UsageError) as caught:
        found(tmp_path, text, "pyproject.toml")
    assert caught.value.what.startswith(f"{tmp_path / 'pyproject.toml'} is no TOML file: ")
    assert caught.value.hint == f"Correct line {line}; the defaults in it are not known until then."


def test_a_damaged_pyproject_further_up_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.bnfold\n")
    (tmp_path / "inner").mkdir()
    assert found(tmp_path / "inner", "threads = 2\n")["bench"] == {"threads": 2}


def test_a_file_in_another_encoding_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "bnfold.toml").write_bytes(b"leftover = '\xff'\n")
    with pytest.raises(UsageError) as caught:
        defaults(FLAGS, tmp_path)
    assert caught.value.hint == "Save it as UTF-8."


def test_a_key_holds_for_every_command_that_has_the_flag(tmp_path: Path) -> None:
    assert found(tmp_path, 'threads = 1\nleftover = "affine"\n') == {
        "convert": {"threads": 1, "leftover": "affine"},
        "bench": {"threads": 1},
    }


def test_a_table_holds_for_one_command_and_goes_first(tmp_path: Path) -> None:
    text = "[tool.bnfold]\nthreads = 1\n[tool.bnfold.bench]\nthreads = 4\n"
    assert found(tmp_path, text, "pyproject.toml") == {"convert": {"threads": 1}, "bench": {"threads": 4}}


def test_a_flag_that_may_stand_several_times_takes_one_or_many(tmp_path: Path) -> None:
    assert found(tmp_path, 'fail-on = "kept>0"\n')["bench"] == {"fail-on": ["kept>0"]}
    assert found(tmp_path, 'fail-on = ["kept>0", "error.rel>1e-5"]\n')["bench"] == {
        "fail-on": ["kept>0", "error.rel>1e-5"]
    }


def test_a_list_for_one_flag_is_what_its_commas_mean(tmp_path: Path) -> None:
    assert found(tmp_path, 'runtime = ["ort", "torch"]\n')["bench"] == {"runtime": "ort,torch"}


def test_bnfold_toml_goes_before_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.bnfold]\nthreads = 3\n")
    assert found(tmp_path, "threads = 2\n")["bench"] == {"threads": 2}


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("thread = 1", "there is no flag called thread", "Did you mean threads?"),
        (
            "[bench]\nleftover = 'conv'",
            "[bench] there is no flag of bench called leftover",
            "There are: fail-on, runtime",
        ),
        ("[bnech]\nthreads = 1", "there is no command called bnech", "Did you mean bench?"),
        ("trust-pickle = true", "trust-pickle cannot have a default", "Pass --trust-pickle on the command line"),
        ("[convert]\noutput = 'x'", "[convert] output cannot have a default", "Pass --output on the command line"),
        ("threads = [[1]]", "threads is neither text nor a number", "Write what would stand behind the flag."),
        ("threads = 2026-11-26", "threads is neither text nor a number", "Write what would stand behind the flag."),
        ("threads", "is no TOML file: ", "Correct its last line; "),
    ],
)
def test_what_is_no_default_is_an_error(tmp_path: Path, text: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(what)) as caught:
        found(tmp_path, text)
    assert str(tmp_path / "bnfold.toml") in str(caught.value)
    assert caught.value.hint.startswith(hint)


def test_a_tool_bnfold_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("tool.bnfold is not a table")):
        found(tmp_path, "[tool]\nbnfold = 3\n", "pyproject.toml")


def test_what_runs_code_or_names_a_file_is_said_each_time() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    flags = {max(p.opts, key=len).removeprefix("--") for command in commands.values() for p in command.params}
    assert {"arch", "data", "force", "json", "output", "trust-pickle"} <= flags & set(SAID_EACH_TIME)


def test_the_command_line_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bnfold.toml").write_text('leftover = "nonsense"\n')
    assert main(["convert", "absent.onnx"]) == 2
    said = f"error[USAGE]: {tmp_path / 'bnfold.toml'}: leftover: no leftover is called 'nonsense'\n"
    assert capsys.readouterr().err.startswith(said)
    assert main(["convert", "absent.onnx", "--leftover", "conv"]) == 3
    capsys.readouterr()
    assert main(["convert", "absent.onnx", "--leftover", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error[USAGE]: no leftover is called 'nonsense'\n")


@pytest.mark.parametrize(
    ("text", "words", "what"),
    [
        ('threads = "one"', ["convert", "m.onnx"], "threads: --threads 'one' is no whole number"),
        ("[bench]\nthreads = 'one'", ["bench", "m.onnx"], "threads: --threads 'one' is no whole number"),
        ('fail-on = "kep>0"', ["inspect", "m.onnx"], "fail-on: --fail-on 'kep>0': no metric is called 'kep'"),
        ("min-time = -1", ["bench", "m.onnx"], "min-time: the time to measure must be positive, not -1 s"),
        ('verify = "fast"', ["convert", "m.onnx"], "verify: no level of verification is called 'fast'"),
    ],
)
def test_a_wrong_value_in_the_file_is_said_to_stand_there(
    text: str,
    words: list[str],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bnfold.toml").write_text(f"{text}\n")
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"error[USAGE]: {tmp_path / 'bnfold.toml'}: {what}")


def test_a_mistake_on_the_command_line_is_not_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bnfold.toml").write_text("threads = 1\nfail-on = 'kept>0'\n")
    assert main(["bench", "m.onnx", "--threads", "one", "--fail-on", "kep>0"]) == 2
    assert main(["inspect", "m.onnx", "--exclude", "fail-on"]) == 3
    assert "bnfold.toml" not in capsys.readouterr().err


def test_an_unknown_key_is_an_error_of_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bnfold.toml").write_text("thread = 1\n")
    assert main(["explain", "IO"]) == 2
    path = tmp_path / "bnfold.toml"
    assert capsys.readouterr().err == f"error[USAGE]: {path}: there is no flag called thread\nDid you mean threads?\n"
