"""A table of docs/benchmarks.md with one row per network, measured one by one; a run that is stopped goes on later."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pages import BENCHMARKS, machine, write_json, write_section
from workers import run
from zoo_models import Entry, watched

Known = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """One section of the page.

    Attributes:
        name: Of the section.
        script: The script that measures a network when it is called as a worker (`workers.serve`).
        data: The file that keeps what was measured.
        packages: Whose versions are said.
        section: The text of the section from that file's contents.
        shortfalls: What is not as promised, one line each, from the networks in it.
    """

    name: str
    script: Path
    data: Path
    packages: Sequence[str]
    section: Callable[[Known], str]
    shortfalls: Callable[[Known], list[str]]

    def measure(self, entries: Sequence[Entry], arguments: argparse.Namespace, **more: Any) -> int:
        """Measures what is not known yet, or everything with `--again`; the exit status.

        Args:
            entries: The networks.
            arguments: With `again`, `seed` and `shim`.
            more: What else the worker is told.
        """
        known: dict[str, Any] = json.loads(self.data.read_text()) if self.data.is_file() else {"models": {}}
        models: dict[str, Any] = known["models"]
        for entry in watched(entries):
            if arguments.again or has_failed(models.get(entry.key, {"error": "not measured"})):
                network = {"source": entry.source, "name": entry.name, "input": entry.input}
                task = {**network, "seed": arguments.seed, "shim": arguments.shim, **more}
                models[entry.key] = run(self.script, task)
                known |= {"machine": machine(*self.packages), "seed": arguments.seed}
                write_json(self.data, known)
                write_section(BENCHMARKS, self.name, self.section(known))
        missed = self.shortfalls(models)
        for line in missed:
            print(line, file=sys.stderr)
        return int(bool(missed))


def has_failed(model: Known) -> bool:
    """Whether a network could not be measured: then its error is in words."""
    return isinstance(model.get("error"), str)


def add_again(parser: argparse.ArgumentParser) -> None:
    """The argument that says to measure anew."""
    parser.add_argument("--again", action="store_true", help="measure what is there already as well")
