"""A short run of `scripts/fuzz.py`: broken files of every format, and random graphs.

`BNFOLD_FUZZ=20` runs twenty times as many.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import fuzz
import fuzz_corpus
import fuzz_mutations
import fuzz_worker
from fuzz_graphs import fold_graphs

FACTOR = int(os.environ.get("BNFOLD_FUZZ", "1"))
FOREVER = time.monotonic() + 1e6
FIRST = 1_000_000  # other files than those of the long runs


def test_broken_files_are_refused_or_harmless() -> None:
    counts, bugs = fuzz.fuzz_files(iter(range(FIRST, FIRST + 130 * FACTOR)), 0, FOREVER)
    assert bugs == {}
    assert set(counts) == {seed.kind for seed in fuzz_corpus.seeds()}
    assert {verdict.split()[0] for row in counts.values() for verdict in row} <= {"refused", "accepted", "checked"}


def test_random_graphs_fold_to_an_equal_function() -> None:
    found = fold_graphs(100 * FACTOR, 1, FOREVER)
    assert found["equal"] == found["count"] == 100 * FACTOR
    assert found["gone"] > found["norms"] / 2


def test_a_case_is_what_its_number_says() -> None:
    corpus = fuzz_corpus.seeds()
    assert fuzz.case(5, 0, corpus) == fuzz.case(5, 0, corpus)
    assert fuzz.case(5, 0, corpus) != fuzz.case(5, 1, corpus)


def test_sound_files_of_every_format_are_told_apart_from_broken_ones(tmp_path: Path) -> None:
    corpus = {seed.kind: seed for seed in fuzz_corpus.seeds()}
    opened = {"ONNX", "ONNX with external data", "state dict", "safetensors", "input data"}
    for kind in opened:
        seed = corpus[kind]
        arguments = ["inspect" if kind != "input data" else "convert", seed.name, *seed.arguments]
        verdict, said = fuzz_worker.judged(tmp_path / "case", fuzz_corpus.ARCH, seed.files, arguments)
        assert verdict == "accepted", said
    for kind in ("TorchScript", ".pt2"):
        seed = corpus[kind]
        verdict, said = fuzz_worker.judged(tmp_path / "case", fuzz_corpus.ARCH, seed.files, ["inspect", seed.name])
        assert verdict == "refused 3", said


@pytest.mark.parametrize(
    ("code", "out", "err", "left", "seen"),
    [
        (6, "", "error[BUG]: x\ny\n", set(), []),
        (3, "", "Traceback (most recent call last)\nerror[UNSAFE]: x\n", set(), []),
        (3, "some", "error[UNSAFE]: x\ny\n", set(), []),
        (3, "", "error[UNSAFE]: x\ny\nz\n", set(), []),
        (3, "", "error[UNSAFE]: \x1b[2J\ny\n", set(), []),
        (5, "", "error[OUTPUT]: x\ny\n", {"m.folded.onnx"}, []),
        (1, "", "error[CHECK]: x\ny\n", {"m.folded.onnx"}, []),
        (0, "", "noise\n", set(), []),
        (0, "", "", {"other"}, []),
        (0, "", "", set(), ["os.system x"]),
        (0, fuzz_worker.SECRET, "", set(), []),
    ],
)
def test_what_counts_as_a_bug(code: int, out: str, err: str, left: set[str], seen: list[str]) -> None:
    assert fuzz_worker._verdict(code, out, err, left, seen)[0] == "BUG"


def test_what_counts_as_none() -> None:
    assert fuzz_worker._verdict(3, "", "error[UNSAFE]: x\ny\n", set(), [])[0] == "refused 3"
    assert fuzz_worker._verdict(0, "fine\n", "", {"m.folded.onnx"}, [])[0] == "accepted"
    assert fuzz_worker._verdict(1, "no\n", "error[CHECK]: x\ny\n", {"m.folded.onnx.rejected"}, [])[0] == "checked"


def test_a_case_that_hangs_and_one_that_ends_its_process_are_bugs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    worker = fuzz.Worker(str(tmp_path / "case"), [])
    (tmp_path / "loop.py").write_text("while True: pass\n")
    arch = ["--arch", f"{tmp_path / 'loop.py'}:net"]
    files = {"m.pt": fuzz_corpus.seeds()[5].files["m.pt"]}
    assert worker.judge(files, ["inspect", "m.pt", *arch]) == ("BUG", "it took longer than 1 seconds")
    (tmp_path / "loop.py").write_text("import os; os._exit(7)\n")
    assert worker.judge(files, ["inspect", "m.pt", *arch]) == ("BUG", "the process ended with 7")
    assert worker.judge({"m.onnx": b"text"}, ["inspect", "m.onnx"])[0] == "refused 3"
    worker.stop()


def test_every_mutation_changes_most_of_what_it_is_given() -> None:
    corpus = fuzz_corpus.seeds()
    for seed in corpus:
        changed = sum(fuzz_mutations.mutated(seed, corpus, Random(number)) != seed.files for number in range(50))
        assert changed > 30, seed.kind
