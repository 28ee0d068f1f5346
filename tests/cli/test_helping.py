"""How help texts are laid out."""

from __future__ import annotations

import re

import pytest
import typer

from bnfold.cli.app import app, main
from bnfold.cli.options import GROUPS

COMMANDS = ("convert", "inspect", "verify", "drift", "bench", "report", "explain")


def shown(command: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([*command.split(), "--help"]) == 0
    return capsys.readouterr().out.partition("Examples:")[0]


@pytest.mark.parametrize("width", [40, 59, 62, 80, 200])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_no_word_is_broken_and_no_line_is_too_long(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(command, width, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= min(width, 80)
    words = set(text.split())
    group = typer.main.get_command(app)
    parameters = group.commands[command].params if command else group.params  # type: ignore[attr-defined]
    for parameter in parameters:
        assert set(parameter.help.split()) <= words, parameter.name


def test_flags_stand_in_groups_in_one_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in COMMANDS:
        text = shown(command, 80, monkeypatch, capsys)
        titles = re.findall(r"^(\w+):$", text, re.MULTILINE)
        assert titles == [title for title in ("Arguments", *GROUPS) if title in titles]
        for title, part in zip(titles[1:], re.split(r"^\w+:$", text, flags=re.MULTILINE)[2:], strict=True):
            flags = re.findall(r"^  (?:-\w, )?(--[\w-]+)", part, re.MULTILINE)
            assert flags
            assert set(flags) - {"--help"} <= set(GROUPS[title])


def test_every_flag_is_in_one_group() -> None:
    flags = [flag for group in GROUPS.values() for flag in group]
    assert len(flags) == len(set(flags))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    there = {max(p.opts, key=len) for each in commands.values() for p in each.params if p.param_type_name == "option"}
    assert set(flags) == there
