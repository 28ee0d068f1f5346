"""Defaults of flags that stand in a file: `[tool.bnfold]` of pyproject.toml, or bnfold.toml.

    [tool.bnfold]                  in pyproject.toml; the same keys without the prefix in bnfold.toml
    threads = 1                    for every command that has the flag
    fail-on = ["kept>0"]

    [tool.bnfold.bench]            for one command
    min-time = 5

The nearest file counts, from the working directory upwards; bnfold.toml before pyproject.toml in one folder. Keys are
the flags' names. What runs code, names a file, or overwrites one can only be said on the command line: a file that came
with a download must not decide it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli

from bnfold.errors import BnfoldError, UsageError
from bnfold.wording import guess, printable

NAMES = ("bnfold.toml", "pyproject.toml")
SAID_EACH_TIME = (
    *("arch", "arch-arg", "data", "metric", "recalibrate", "trust-pickle"),  # these run code
    *("force", "html", "input-data", "json", "junit", "markdown", "output"),  # these name files
)


@dataclass(frozen=True)
class Defaults:
    """The defaults that are in force.

    Attributes:
        path: The file they stand in; empty where there is none.
        values: By command and flag.
        typed: The flags that were given on the command line, which go before the file's.
    """

    path: str = ""
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()

    def beside(self, words: Sequence[str]) -> Defaults:
        """The same where these words were given on the command line."""
        return replace(self, typed=frozenset(w[2:].partition("=")[0] for w in words if w.startswith("--")))

    def blamed(self, error: BnfoldError, command: str) -> BnfoldError:
        """An error about a value that stands in the file, with the file's name and the key; any other as it is.

        Args:
            error: What was wrong: its words name the flag, or quote the value.
            command: The command that was run.
        """
        if not isinstance(error, UsageError):
            return error
        for flag, value in self.values.get(command, {}).items():
            quoted = [repr(each) for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
            named = re.search(rf"--{re.escape(flag)}(?![\w-])", f"{error.what} {error.hint}") is not None
            if flag not in self.typed and (named or any(each in error.what for each in quoted)):
                return UsageError(f"{self.path}: {flag}: {error.what}", error.hint).with_traceback(error.__traceback__)
        return error


IN_FORCE: ContextVar[Defaults] = ContextVar("IN_FORCE")

Flags = Mapping[str, Mapping[str, bool]]  # command → flag → whether it may stand several times


def defaults(flags: Flags, folder: str | os.PathLike[str] = ".") -> Defaults:
    """The defaults that hold in a folder.

    Args:
        flags: The flags of every command, without their dashes, and whether each may stand several times.
        folder: The working directory.

    Raises:
        UsageError: The file is no TOML, or a key in it is no flag.
    """
    for place in (Path(folder).absolute(), *Path(folder).absolute().parents):
        for name in NAMES:
            found = _table(place / name)
            if found is not None:
                return Defaults(str(place / name), _by_command(found, flags, str(place / name)))
    return Defaults()


def _table(path: Path) -> Mapping[str, Any] | None:
    """The table of a file that is for bnfold; None where there is none."""
    if not path.is_file():  # a pipe of that name would be waited for
        return None
    try:
        text = path.read_bytes()
    except OSError:
        return None
    try:
        content: Mapping[str, Any] = tomli.loads(text.decode())
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        if path.name != "bnfold.toml" and b"bnfold" not in text:
            return None  # no defaults stand in it, and whoever reads it for a living will say so
        line = re.search(r"at line (\d+)", str(error))
        where = f"line {line[1]}" if line else "its last line"
        hint = f"Correct {where}; the defaults in it are not known until then."
        if isinstance(error, UnicodeDecodeError):
            hint = "Save it as UTF-8."
        raise UsageError(f"{path} is no TOML file: {error}", hint) from error
    if path.name == "bnfold.toml":
        return content
    table = content.get("tool", {}).get("bnfold")
    if table is not None and not isinstance(table, Mapping):
        raise UsageError(f"{path}: tool.bnfold is not a table", "Write [tool.bnfold], and the defaults under it.")
    return table


def _by_command(table: Mapping[str, Any], flags: Flags, path: str) -> dict[str, dict[str, Any]]:
    everywhere = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    known = sorted({flag for each in flags.values() for flag in each})
    for key in everywhere:
        _check_key(key, known, f"{path}: ", "flag")
    found: dict[str, dict[str, Any]] = {name: {} for name in flags}
    for name, own in flags.items():
        found[name] = {key: _value(key, value, own[key], path) for key, value in everywhere.items() if key in own}
    for name, own_values in table.items():
        if not isinstance(own_values, Mapping):
            continue
        _check_key(name, sorted(flags), f"{path}: ", "command")
        for key, value in own_values.items():
            _check_key(key, sorted(flags[name]), f"{path}: [{name}] ", f"flag of {name}")
            found[name][key] = _value(key, value, flags[name][key], path)
    return found


def _check_key(key: str, known: Sequence[str], where: str, what: str) -> None:
    if key in SAID_EACH_TIME:
        raise UsageError(
            f"{where}{key} cannot have a default", f"Pass --{key} on the command line, where it is seen to be meant."
        )
    if key not in known:
        meant = guess(key.replace("_", "-").lower(), known).rstrip() or f"There are: {', '.join(known)}."
        raise UsageError(f"{where}there is no {what} called {printable(key)}", meant)


def _value(key: str, value: Any, several: bool, path: str) -> Any:
    """A value as a flag takes it: text, or what stands for itself; a list where the flag may stand several times."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, (str, int, float, bool)) for each in values):
        raise UsageError(f"{path}: {key} is neither text nor a number", "Write what would stand behind the flag.")
    if several:
        return [str(each) for each in values]
    if isinstance(value, list):
        return ",".join(map(str, value))  # --runtime ort,torch
    return value
