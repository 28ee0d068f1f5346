"""How names and errors that come from elsewhere are put into a message: one line, printable, of bounded length.

Everything that is printed or written as a report goes through `printable`: what is left of a name is letters, digits,
signs and single spaces. Control characters (C0, C1, ESC), bidirectional and other invisible ones, surrogates and
unassigned ones are replaced. Markup is left alone: nothing of bnfold's reads any, and JSON spells out `<`, `>` and `&`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN = 5
LONGEST_LINE = 2000  # characters of a message
LONGEST_TEXT = 10_000  # characters of one text in JSON
KNOWN_FORMATS = "bnfold reads ONNX, PyTorch checkpoints and modules, safetensors, TorchScript and .pt2 files."


def printable(text: object, limit: int = 120) -> str:
    """A name from a model file without control or bidirectional characters."""
    plain = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)[: limit + 1])
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def listed(names: Iterable[object]) -> str:
    """The first few names, quoted, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{printable(name)}'" for name in names[:SHOWN]) + more


def guess(word: str, known: Sequence[str], count: int = 1) -> str:
    """What a word that does not exist may have been meant to be, as a question; empty where nothing is like it."""
    close = difflib.get_close_matches(word, known, n=count)
    return f"Did you mean {printable(' or '.join(close), LONGEST_LINE)}? " if close else ""


def guess_among(word: str, known: Sequence[str]) -> str:
    """`guess`, and all there are."""
    return f"{guess(word, known)}There are: {', '.join(known)}."


def first_line(error: BaseException, limit: int = 200) -> str:
    """An exception's kind and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {printable(lines[0], limit)}" if lines else type(error).__name__


def one_line(text: str) -> str:
    """A message on one line, printable, of bounded length."""
    return printable(" ".join(text.split()), LONGEST_LINE)


def printable_lines(text: str) -> str:
    """A text of several lines, each of them printable."""
    return "\n".join(printable(line.expandtabs(), LONGEST_LINE) for line in text.split("\n"))


def inert(data: Any) -> Any:
    """JSON data whose texts and keys are all printable."""
    if isinstance(data, str):
        return printable(data, LONGEST_TEXT)
    if isinstance(data, Mapping):
        return {printable(key, LONGEST_TEXT): inert(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [inert(item) for item in data]
    return data


def to_json(data: Any, *, compact: bool = False) -> str:
    """JSON in ASCII, which does nothing either where it is pasted into a page: `<`, `>` and `&` are spelt out."""
    text = json.dumps(data, indent=None if compact else 2, separators=(",", ":") if compact else None, allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text + "\n"
