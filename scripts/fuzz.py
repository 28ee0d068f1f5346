"""Breaks sound model files, and folds random graphs, to find what bnfold does not take well.

    python scripts/fuzz.py files  --count 10000              broken files of every format
    python scripts/fuzz.py files  --only 4711                one case again, which is left in a folder
    python scripts/fuzz.py graphs --count 20000              random graphs fold to an equal function; in pieces of 500
    python scripts/fuzz.py files  --count 1000 --publish     goes on where the last one stopped, and writes
                                                             docs/reliability.md
    python scripts/fuzz.py files  --again --publish          the cases that were bugs, once more

Every case is drawn from its number and `--seed`. A case has 10 seconds of processor time in a process of its own, which
is started again when it hangs or ends. The exit status is 1 when there is a bug.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from fuzz_corpus import ARCH, Seed, seeds
from fuzz_graphs import fold_graphs
from fuzz_mutations import mutated
from fuzz_worker import serve
from pages import DOCS, machine, paragraph, write_json, write_section

SECONDS = 10
MEASURED = DOCS / "fuzzing.json"
PAGE = DOCS / "reliability.md"
BEGINNING = 180  # seconds for a process to import what it needs

Case = tuple[str, dict[str, bytes], list[str]]


def case(number: int, seed: int, corpus: list[Seed]) -> Case:
    """A broken file: its format, its files, and the command line that opens it."""
    rng = Random(f"{seed}:{number}")
    chosen = corpus[number % len(corpus)]
    files = mutated(chosen, corpus, rng)
    command = "convert" if rng.random() < 0.3 or "--input-data" in chosen.arguments else "inspect"
    return chosen.kind, files, [command, chosen.name, *chosen.arguments]


class Worker:
    """A process that judges cases, started again when one hangs or ends it."""

    def __init__(self, folder: str, corpus: list[Seed]) -> None:
        self._folder = folder
        self._warm = [(seed.files, ["convert", seed.name, *seed.arguments]) for seed in corpus]
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._folder, ARCH, self._warm), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(BEGINNING) or self._pipe.recv() != "ready":
            raise RuntimeError("the process does not start")

    def judge(self, files: dict[str, bytes], arguments: list[str]) -> tuple[str, str]:
        """The verdict on one case, and what was said."""
        self._pipe.send((files, arguments))
        began, given_up = self._processor_seconds(), time.monotonic() + 10 * SECONDS
        try:
            while self._processor_seconds() - began < SECONDS and time.monotonic() < given_up:
                if self._pipe.poll(1):
                    verdict: tuple[str, str] = self._pipe.recv()
                    return verdict
            verdict = ("BUG", f"it took longer than {SECONDS} seconds")
        except EOFError:
            self._process.join(5)
            verdict = ("BUG", f"the process ended with {self._process.exitcode}")
        self._process.kill()
        self._process.join()
        self._start()
        return verdict

    def _processor_seconds(self) -> float:
        """What the process has used so far: other programs on the machine do not make a case hang."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended, or the system says it elsewhere
            return time.monotonic()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends the process."""
        self._pipe.send(None)
        self._process.join(10)


def fuzz_files(numbers: Iterator[int], seed: int, until: float) -> tuple[dict[str, Counter[str]], dict[int, str]]:
    """Counts of verdicts by format, and the formats of the bugs by the numbers of their cases."""
    corpus = seeds()
    counts: dict[str, Counter[str]] = {}
    bugs: dict[int, str] = {}
    with tempfile.TemporaryDirectory(prefix="bnfold-fuzz-") as folder:
        worker = Worker(os.path.join(folder, "case"), corpus)
        for number in numbers:
            if time.monotonic() > until:
                break
            kind, files, arguments = case(number, seed, corpus)
            verdict, said = worker.judge(files, arguments)
            counts.setdefault(kind, Counter())[verdict] += 1
            if verdict == "BUG":
                bugs[number] = kind
                print(f"case {number} ({kind}): {' '.join(arguments)}\n{said}\n", flush=True)
        worker.stop()
    return counts, bugs


def keep(number: int, seed: int) -> None:
    """Writes the files of one case into a folder and runs it."""
    kind, files, arguments = case(number, seed, seeds())
    folder = Path(tempfile.mkdtemp(prefix=f"bnfold-case-{number}-"))
    for name, data in {**files, "nets.py": ARCH.encode()}.items():
        (folder / name).write_bytes(data)
    print(f"{kind}: cd {folder} && bnfold {' '.join(arguments)}")


def publish() -> None:
    """The section on fuzzing of docs/reliability.md, from what was measured."""
    data = measured()
    lines = ["## Fuzzing", ""]
    if "files" in data:
        found = data["files"]
        total = sum(sum(row.values()) for row in found["counts"].values())
        lines += paragraph(
            f"`python scripts/fuzz.py files --count {total} --publish`: {total:,} files, each a "
            "sound one broken in its bytes or in what they mean, opened by `bnfold inspect` or `bnfold convert`. "
            "Refused: exit code 2 to 5, in two lines, with nothing on stdout and nothing written. Accepted: exit code "
            "0; what was converted was proved or compared to be the same function. Put aside: exit code 1, the fold "
            f"was found to differ (absurd weights). A bug would be a traceback, more than {SECONDS} seconds, a process "
            "that ends, output on failure, or a canary (a file, a process, a connection) that sings; bugs found "
            "on the way are mended, and their cases were run again. "
            f"{found['machine']}."
        )
        verdicts = sorted({verdict for row in found["counts"].values() for verdict in row if row[verdict]} | {"BUG"})
        names = {"accepted": "accepted", "checked": "put aside", "BUG": "bugs"}
        lines.append("| format | cases | " + " | ".join(names.get(each, each) for each in verdicts) + " |")
        lines.append("|---|" + "---:|" * (len(verdicts) + 1))
        for kind, row in found["counts"].items():
            cells = [f"{row.get(verdict, 0):,}" for verdict in verdicts]
            lines.append(f"| {kind} | {sum(row.values()):,} | {' | '.join(cells)} |")
        sums = [sum(row.get(verdict, 0) for row in found["counts"].values()) for verdict in verdicts]
        lines += [f"| all | {total:,} | {' | '.join(f'{count:,}' for count in sums)} |", ""]
    if "graphs" in data:
        found = data["graphs"]
        lines += paragraph(
            f"`python scripts/fuzz.py graphs --count {found['count']} --publish`: {found['count']:,} random graphs, "
            f"drawn by Hypothesis, with {found['norms']:,} BatchNorms, of which {found['gone']:,} went. Computed in "
            f"float64 before and after, and compared to 1e-9 of each output: {found['equal']:,} equal, "
            f"{found['refused']:,} refused, {found['different']:,} different"
            f"{', which is not mended yet' if found['different'] else ''}; {found.get('again', 0)} of the equal ones "
            f"differed at first, and were drawn again once that was mended. {found['machine']}."
        )
    if not PAGE.is_file():
        PAGE.write_text("# Reliability\n", encoding="utf-8")
    write_section(PAGE, "fuzzing", "\n".join(lines).rstrip())


def measured() -> dict[str, Any]:
    """What was measured before."""
    data: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    return data


def record(name: str, found: dict[str, Any]) -> None:
    """Adds what was measured, and writes the page again."""
    where = machine("torch", "onnx", "onnxruntime", "safetensors")
    write_json(MEASURED, {**measured(), name: {**found, "machine": where}})
    publish()


def record_files(before: dict[str, Any], last: int, counts: dict[str, Counter[str]], bugs: dict[int, str]) -> None:
    """Adds counts of broken files to those before."""
    total = {kind: Counter(row) for kind, row in before["counts"].items()}
    for kind, row in counts.items():
        total[kind] = total.get(kind, Counter()) + row
    open_bugs = {**before["bugs"], **{str(number): kind for number, kind in bugs.items()}}
    rows = {kind: dict(row) for kind, row in total.items()}
    record("files", {"seed": before["seed"], "next": last, "counts": rows, "bugs": open_bugs})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("files", "graphs"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, help="the number of the first case")
    parser.add_argument("--again", action="store_true", help="the cases that were bugs")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, which is left in a folder")
    parser.add_argument("--publish", action="store_true", help="write docs/reliability.md")
    arguments = parser.parse_args()
    if arguments.only is not None:
        keep(arguments.only, arguments.seed)
        return 0
    until = time.monotonic() + 60 * arguments.minutes
    if arguments.what == "graphs":
        graphs = measured().get("graphs", {}) if arguments.publish else {}
        seed = graphs.get("seed", arguments.seed)
        found = fold_graphs(arguments.count, seed, until, graphs.get("pieces", 0))
        print(found)
        if arguments.publish:
            total = {key: value + (graphs.get(key, 0) if key != "pieces" else 0) for key, value in found.items()}
            record("graphs", {**total, "seed": seed})
        return int(found["different"] > 0)
    before = measured().get("files", {"seed": arguments.seed, "next": 0, "counts": {}, "bugs": {}})
    first = before["next"] if arguments.publish and arguments.first is None else arguments.first or 0
    numbers = list(range(first, first + arguments.count))
    if arguments.again:
        numbers, before["bugs"] = [int(number) for number in before["bugs"]], {}
        before["counts"] = {kind: {**row, "BUG": 0} for kind, row in before["counts"].items()}
        first, arguments.count = before["next"], 0
    counts, bugs = fuzz_files(iter(numbers), before["seed"], until)
    for kind, row in counts.items():
        print(f"{kind}: {dict(row)}")
    print(f"{sum(sum(row.values()) for row in counts.values())} cases, {len(bugs)} bugs: {sorted(bugs)}")
    if arguments.publish:
        record_files(before, first + arguments.count, counts, bugs)
    return int(bool(bugs))


if __name__ == "__main__":
    sys.exit(main())
