"""How `--help` is laid out: flags in groups, every word whole, on terminals from 40 columns up.

Typer without rich puts all flags into one list, never makes it narrower than 50 columns, and breaks the words that do
not fit beside the flags; rich is too slow to import for a help text.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

import typer.core

from bnfold.cli.options import GROUPS

REST = "General"  # of what Typer adds itself
WIDEST, NARROWEST = 80, 40
BESIDE = 60  # columns from which the text stands beside the flag, not below
FLAG_COLUMNS = 30


def help_width() -> int:
    """The columns that a help text takes, of those that the terminal has."""
    return max(min(shutil.get_terminal_size().columns, WIDEST), NARROWEST) - 2


class GroupedCommand(typer.core.TyperCommand):
    """A command whose help lists its flags in the groups that they were declared in."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, and then one section per group."""
        _write_options(self, ctx, formatter)


class GroupedCommands(typer.core.TyperGroup):
    """The same for the command line as a whole, with the list of commands below."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the flags, and then the commands."""
        _write_options(self, ctx, formatter)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(WIDEST)) for name, each in commands if each and not each.hidden]
        _write_section("Commands", rows, formatter, max(len(name) for name, _ in rows))


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            argument = parameter.param_type_name == "argument"
            title = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or REST
            groups.setdefault(title, []).append(record)
    terms = [len(term) for rows in groups.values() for term, _ in rows]
    column = min(max(terms), FLAG_COLUMNS)
    for title in ("Arguments", *GROUPS):
        if title in groups:
            _write_section(title, groups[title], formatter, column)


def _write_section(title: str, rows: Sequence[tuple[str, str]], formatter: Any, column: int) -> None:
    with formatter.section(title):
        for term, text in rows:
            formatter.write("".join(f"{line}\n" for line in _lines(term, text, formatter, column)))


def _lines(term: str, text: str, formatter: Any, column: int) -> list[str]:
    """A flag and what it means, the text beside it where there is room."""
    indent = formatter.current_indent
    beside = formatter.width >= BESIDE
    start = indent + column + 2 if beside else indent + 4
    first = " " * indent + term
    width = formatter.width - start
    wrapped = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    if beside and wrapped and len(term) <= column:
        first, wrapped = f"{first:<{start}}{wrapped[0]}", wrapped[1:]
    return [first.rstrip(), *(" " * start + line for line in wrapped)]
