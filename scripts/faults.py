"""Puts faults into every writer, one at each step, and writes what was left into docs/reliability.md.

    python scripts/faults.py            all of them, a few minutes
    python scripts/faults.py --light    without the writers that need PyTorch; writes nothing

The faults are those of tests/faults, which stop at the first thing that is wrong; this counts. The exit status is 1
when something was left that is neither the old output nor the new one, or was said wrongly.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from pages import RELIABILITY, machine, paragraph, write_section

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from faults.campaign import ERRORS, SIGNALS, Outcome, failing_calls, failing_memory, killed, signalled
from faults.injection import lines
from faults.processes import commands
from faults.runs import CODES, MOMENTS, concurrent_runs, signalled_runs
from faults.writers import LIGHT, TORCH, Writer

RUNS = 20


def campaigns() -> list[tuple[str, Callable[[Writer], Outcome]]]:
    """What is done to every writer, and what it is called in the table."""

    def failing(error: str, lasting: bool) -> Callable[[Writer], Outcome]:
        return lambda writer: failing_calls(writer, error, lasting=lasting)

    def signalling(name: str) -> Callable[[Writer], Outcome]:
        return lambda writer: signalled(writer, name)

    return [
        *((f"`{error}`, one call", failing(error, False)) for error in ERRORS),
        *((f"`{error}`, from a call on", failing(error, True)) for error in ERRORS),
        ("`MemoryError`, each line", failing_memory),
        ("`SIGINT`, each line", lambda writer: signalled(writer, "SIGINT", lines)),
        *((f"`{name}`, each call", signalling(name)) for name in SIGNALS),
        ("`SIGKILL`, each call", killed),
    ]


def section(rows: Sequence[tuple[str, list[Outcome]]], runs: Sequence[Outcome], writers: Sequence[Writer]) -> str:
    """The text of the page's section."""
    outcomes = [*(outcome for _, found in rows for outcome in found), *runs]
    total = sum(outcome.old + outcome.new for outcome in outcomes)
    wrong = sum(len(outcome.problems) for outcome in outcomes)
    stale = sum(outcome.stale for name, found in rows for outcome in found if "SIGKILL" not in name)
    said = (
        f"Each writer replaced an output, again and again, with one fault at one of its steps: at every call of the "
        f"operating system that it makes (open, write, flush, fsync, read, rename, chmod, mkdir, listdir), or at every "
        f"line of our own that writes. Afterwards the folder was compared, byte for byte, with the old output and with "
        f"the new one, and the exit code and message with the fault. In {total:,} cases the old output was left or the "
        f"new one was there, whole, and {'nothing else' if not wrong else f'{wrong} times something else'}. "
        f"A cell says how often each."
    )
    table = [
        f"| fault | {' | '.join(writer.name for writer in writers)} |",
        f"|---|{'---|' * len(writers)}",
        *(f"| {name} | {' | '.join(_cell(outcome) for outcome in found)} |" for name, found in rows),
    ]
    kills = (
        f"After SIGKILL a temporary folder stays, and perhaps data that nothing names; the next run that writes there "
        f"removes both, which was checked each time. Where a call or the memory failed just after the new model was "
        f"put in place, the data of the old one stayed as well until the next run ({stale} of the cases under `new`)."
    )
    whole = (
        f"Whole runs of `bnfold convert`, in processes of their own, over an earlier model with external data: signals "
        f"at {MOMENTS} moments from start to end, and {RUNS} runs at once that write 4 different models to one output "
        f"while a reader opens it again and again."
    )
    ended = [
        "| run | old left | new there | wrong |",
        "|---|---|---|---|",
        *(f"| {each.fault} | {each.old} | {each.new} | {len(each.problems)} |" for each in runs),
    ]
    real = (
        "A full disk (a file system of 64 kB), a read-only one, a limit on the size of files, a pipe whose reader has "
        "left, `LC_ALL=C` with names outside ASCII and a terminal of 40 columns are in `tests/faults/test_runs.py`."
    )
    lines_of_text = ["## Faults", "", *paragraph(said), *table, "", *paragraph(kills), *paragraph(whole), *ended, ""]
    written = f"Written by `scripts/faults.py` on {machine('torch', 'onnx-ir', 'safetensors')}."
    return "\n".join([*lines_of_text, *paragraph(real), *paragraph(written)]).rstrip()


def _cell(outcome: Outcome) -> str:
    wrong = f", {len(outcome.problems)} wrong" if outcome.problems else ""
    return f"{outcome.old} old, {outcome.new} new{wrong}"


def main() -> int:
    """Runs everything; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--light", action="store_true", help="only what needs no PyTorch; writes nothing")
    light = parser.parse_args().light
    warnings.simplefilter("ignore", ResourceWarning)  # a file whose `with` was never reached
    writers = LIGHT if light else (*LIGHT, *TORCH)
    rows = []
    for name, campaign in campaigns():
        rows.append((name, [campaign(writer) for writer in writers]))
        print(name, *(_cell(outcome) for outcome in rows[-1][1]), sep="  |  ", flush=True)
    with tempfile.TemporaryDirectory() as name, commands(Path(name) / "said") as server:
        root = Path(name)
        runs = [signalled_runs(server, root, signal) for signal in (*CODES, "SIGKILL")]
        runs.append(concurrent_runs(server, root / "many", RUNS))
    if not light:
        write_section(RELIABILITY, "faults", section(rows, runs, writers))
    outcomes = [*(each for _, found in rows for each in found), *runs]
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
