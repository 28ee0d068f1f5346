"""Breaks the source one line at a time; the tests concerned must notice every break.

    python scripts/mutants.py              all of them, on all cores
    python scripts/mutants.py --only 7 12  just these
    python scripts/mutants.py --list       what they are

Each mutant replaces one piece of text, which must occur exactly once, in a temporary copy of the repository (never in
the working tree), and runs the tests named beside it. It is caught when a test fails. The exit status is 1 when one
survives, when its text is no longer there, or when it breaks so badly that no test runs.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("bnfold", "tests", "models", "pyproject.toml")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Mutant:
    """One break.

    Attributes:
        what: What goes wrong.
        file: The file, relative to the repository.
        old: Text that occurs exactly once in it.
        new: What stands there instead.
        tests: Arguments of pytest: the tests concerned.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS: tuple[Mutant, ...] = ()


def stale(mutant: Mutant) -> str | None:
    """Why a mutant cannot be applied to this tree, if so."""
    path = ROOT / mutant.file
    if not path.is_file():
        return f"there is no {mutant.file}"
    count = path.read_text().count(mutant.old)
    if count != 1:
        return f"its text occurs {count} times in {mutant.file}, not once: {mutant.old!r}"
    missing = [test for test in mutant.tests if test.startswith("tests/") and not (ROOT / test.split("::")[0]).exists()]
    return f"there is no {missing[0]}" if missing else None


def copy_tree(folder: Path) -> None:
    """A copy of the repository that the tests can run in."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        else:
            shutil.copy(source, folder / part)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit status and output, with the copy before any installed bnfold and no bytecode left behind."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "BNFOLD_SHRINK": "0",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {TIMEOUT_S} s"
    return result.returncode, result.stdout


def try_mutant(mutant: Mutant, folder: Path) -> tuple[bool, str]:
    """Whether the tests catch it, and how to say so."""
    path = folder / mutant.file
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        status, output = run_tests(folder, mutant.tests)
    finally:
        path.write_text(whole)
    if status == 0:
        return False, "SURVIVED"
    if status != 1:
        return False, "BROKEN (no test ran to its end)\n" + "\n".join(output.splitlines()[-15:])
    failed = next((line.split(" - ")[0][7:] for line in output.splitlines() if line.startswith("FAILED ")), "a test")
    return True, f"caught by {failed}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="numbers as --list shows them")
    parser.add_argument("--list", action="store_true", help="show the mutants and stop")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (default: one per core)"
    )
    arguments = parser.parse_args()
    chosen = [
        (number, mutant) for number, mutant in enumerate(MUTANTS, 1) if number in (arguments.only or range(1, 1000))
    ]
    if arguments.list:
        for number, mutant in chosen:
            print(f"{number:3}  {mutant.file:32} {mutant.what}  [{' '.join(mutant.tests)}]")
        return 0

    bad = [f"{number:3}  STALE: {mutant.what}: {why}" for number, mutant in chosen if (why := stale(mutant))]
    if bad:
        print("\n".join(bad))
        return 1

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bnfold-mutants-") as scratch:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for job in range(arguments.jobs):
            folder = Path(scratch) / str(job)
            folder.mkdir()
            copy_tree(folder)
            copies.put(folder)

        suites = sorted({mutant.tests for _, mutant in chosen})
        print(f"{len(suites)} sets of tests on the unbroken source", flush=True)

        def control(tests: tuple[str, ...]) -> tuple[bool, str]:
            folder = copies.get()
            try:
                status, output = run_tests(folder, tests)
            finally:
                copies.put(folder)
            return status == 0, output

        def attempt(numbered: tuple[int, Mutant]) -> bool:
            folder = copies.get()
            try:
                caught, verdict = try_mutant(numbered[1], folder)
            finally:
                copies.put(folder)
            print(
                f"{numbered[0]:3}/{len(MUTANTS)} {time.perf_counter() - start:5.0f} s  {numbered[1].what}: {verdict}",
                flush=True,
            )
            return caught

        with ThreadPoolExecutor(arguments.jobs) as pool:
            for tests, (passed, output) in zip(suites, pool.map(control, suites), strict=True):
                if not passed:
                    print(output)
                    print(f"the unbroken source fails {' '.join(tests)}: a mutant would prove nothing")
                    return 1
            caught = sum(pool.map(attempt, chosen))

    print(f"{caught} of {len(chosen)} mutants caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
