"""How names and errors that come from elsewhere are put into a message: one line, printable, of bounded length."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5
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


def first_line(error: BaseException, limit: int = 200) -> str:
    """An exception's kind and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {printable(lines[0], limit)}" if lines else type(error).__name__
