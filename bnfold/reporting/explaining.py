"""Prints what reasons mean: all of them in a sentence each, or one at length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.reasons import Reason
from bnfold.reporting.explanations import EXPLANATIONS
from bnfold.reporting.render import INDENT, print_sentence

if TYPE_CHECKING:
    from rich.console import Console


def print_reasons(reasons: Sequence[Reason], console: Console) -> None:
    """Prints a sentence on what each reason means and one on what to do about it."""
    for index, reason in enumerate(reasons):
        if index:
            console.print()
        _print_reason(reason, console)
        print_sentence(reason.advice, console)


def print_explanation(reason: Reason, console: Console) -> None:
    """Prints a reason at length; the picture is left out where the terminal is narrower than it is."""
    explanation = EXPLANATIONS[reason]
    _print_reason(reason, console)
    console.print()
    print_sentence(explanation.meaning, console)
    lines = explanation.picture.splitlines()
    if max(map(len, lines)) + 2 * INDENT <= console.width:
        console.print()
        for line in lines:
            console.print(Padding(Text(line, style="cyan", no_wrap=True), (0, 0, 0, 2 * INDENT), expand=False))
    console.print()
    console.print(Text("What would let it fold", style="bold"))
    changes = Table.grid(padding=(0, 1, 0, 0))
    for change in explanation.change:
        changes.add_row(Text("-"), Text(change))
    console.print(Padding(changes, (0, 0, 0, INDENT), expand=False))


def _print_reason(reason: Reason, console: Console) -> None:
    console.print(Text(reason.code, style="bold"))
    print_sentence(f"{reason.text[:1].upper()}{reason.text[1:]}.", console)
