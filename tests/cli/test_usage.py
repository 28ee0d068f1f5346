"""Calls that Typer refuses, and what is said instead of its words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bnfold.cli.app import app, main
from bnfold.cli.usage import SYNONYMS, usage_error

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback is not None]

CALLS = {
    "another word for a command": (
        ["fold", "m.onnx"],
        "no such command 'fold'\nDid you mean 'convert'? See bnfold --he",
    ),
    "a file instead of a command": (
        ["a model.onnx"],
        "'a model.onnx' is a file, not a command\nTo fold it: bnfold convert 'a model.onnx'\n",
    ),
    "no data": (["drift", "m.onnx"], "missing --data\nLike: bnfold drift model.onnx --data deployed.npz (see bnfold d"),
    "no second model": (["verify", "m.onnx"], "missing argument 'AFTER'\nLike: bnfold verify model.onnx model.fold"),
    "an output without its flag": (
        ["convert", "a.onnx", "b.onnx"],
        "convert takes one model, and was given 'b.onnx' as well\nName the output with -o: bnfold convert a.onnx -o b",
    ),
    "two models to inspect": (
        ["inspect", "a.onnx", "b.onnx"],
        "inspect takes one model, and was given 'b.onnx' as well\nTo compare two models: bnfold verify a.onnx b.onnx\n",
    ),
    "three models": (
        ["bench", "a", "b", "c"],
        "bench takes two models, and was given 'c' as well\nSee bnfold bench --help.\n",
    ),
    "a word for a number": (
        ["convert", "m.onnx", "--max-time", "fast"],
        "--max-time 'fast' is no number\nPass --max-time SECONDS, a number.\n",
    ),
    "a fraction for a whole number": (
        ["convert", "m.onnx", "--threads=1.5"],
        "--threads '1.5' is no whole number\nPass --threads N, a whole number.\n",
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_said_in_plain_words(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a model.onnx").write_bytes(b"")
    words, said = CALLS[call]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error[USAGE]: {said}")
    assert err.count("\n") == 2


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    for word, flag in ((["help"], ["--help"]), (["help", "verify"], ["verify", "--help"])):
        assert main(word) == 0
        asked = capsys.readouterr().out
        assert main(flag) == 0
        assert capsys.readouterr().out == asked
    assert main(["inspect", "help"]) == 3  # a model called so


def test_synonyms_are_of_commands_and_none_is_one() -> None:
    assert set(SYNONYMS.values()) <= set(COMMANDS)
    assert not set(SYNONYMS) & set(COMMANDS)


def test_other_versions_of_typer_are_read_too() -> None:
    parameter = SimpleNamespace(opts=["--threads"], metavar="N", name="threads", param_type_name="option")
    old = SimpleNamespace(message="'one' is not a valid integer.", param=parameter, ctx=None)
    assert usage_error(old).what == "--threads 'one' is no whole number"
    few = SimpleNamespace(message="Got unexpected extra argument (b)", ctx=SimpleNamespace(
        command=SimpleNamespace(name="convert"), command_path="bnfold convert", params={"model": "a"}
    ))  # fmt: skip
    assert usage_error(few).hint == "Name the output with -o: bnfold convert a -o b"


def test_a_usage_error_without_context_points_to_the_help() -> None:
    class Found(Exception):
        message = "No such option: --x"

    error = usage_error(Found())
    assert (error.what, error.hint) == ("no such option: --x", "See bnfold --help.")
