"""What the scripts that write into docs/ share: sections between markers, and the machine they ran on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
BENCHMARKS = DOCS / "benchmarks.md"
RELIABILITY = DOCS / "reliability.md"


def write_section(page: Path, name: str, text: str) -> None:
    """Puts a text between the markers `name: begin` and `name: end` of a page, and leaves the rest as it is.

    Args:
        page: The page; it is made where there is none.
        name: Of the section.
        text: Without the markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = page.read_text(encoding="utf-8") if page.is_file() else f"# {page.stem.capitalize()}\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = old.split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes measurements so that a run that is stopped loses none of those before."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def paragraph(text: str) -> list[str]:
    """A paragraph in lines, and the empty line behind it."""
    return [*textwrap.wrap(text, 140, break_long_words=False, break_on_hyphens=False), ""]


def machine(*packages: str) -> str:
    """The processor, its cores, Python, and the versions of some packages, as one line."""
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return f"{_cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "without a version"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
