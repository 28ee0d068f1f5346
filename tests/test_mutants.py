"""The one-line breaks of `make mutants` still fit the source; that the tests catch them, `make mutants` shows."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


def test_every_break_is_of_a_line_that_is_there_once() -> None:
    stale = [
        f"{mutant.what}: {count} times in {mutant.file}"
        for mutant in load().MUTANTS
        if (count := (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)) != 1
    ]
    assert stale == []


def test_there_are_at_least_as_many_as_promised() -> None:
    assert len(load().MUTANTS) >= 25
