"""Converts a generated model of 3.5 GB and measures the memory it takes; writes docs/reliability.md.

    python scripts/huge.py                 some minutes, 12 GB of disk; with --verify off and quick
    python scripts/huge.py --full          with --verify full as well, which takes longer, and most memory

The exit status is 1 when a conversion fails, leaves a BatchNorm, or takes more than it is promised to: 1.5 times the
largest tensor and 1 GB, for folding and writing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from pages import RELIABILITY, machine, paragraph, write_section

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from large.models import Large, Memory, make, measured

ROOT = Path(__file__).resolve().parent.parent
GB = 1_000_000_000
ALLOWED_BYTES = GB  # besides 1.5 times the largest tensor
DONE = {
    "off": "fold and write",
    "quick": "fold, write, and run both models in onnxruntime",
    "full": "fold, write, prove, and run both models and the unfolded one in float64",
}


def convert(model: Large, level: str) -> Memory:
    """Converts a model with one level of verification."""
    out = model.path.with_name("out.onnx")
    command = [sys.executable, "-m", "bnfold", "convert", str(model.path), "-o", str(out), "--force"]
    os.environ["PYTHONPATH"] = str(ROOT)
    return measured([*command, "--verify", level, "--no-progress"], every=0.005)


def allowed(model: Large) -> int:
    """What folding and writing may take."""
    return int(1.5 * model.largest + ALLOWED_BYTES)


def shortfalls(model: Large, taken: dict[str, Memory]) -> list[str]:
    """What is not as promised, one line each."""
    found = [f"--verify {level}: exit code {each.code}: {each.said}" for level, each in taken.items() if each.code]
    found += [
        f"--verify {level} left BatchNorms"
        for level, each in taken.items()
        if f"{model.batch_norms} BatchNorms → 0" not in each.said
    ]
    if taken["off"].peak > allowed(model):
        found.append(f"fold and write took {taken['off'].peak:,} bytes, allowed are {allowed(model):,}")
    return found


def section(model: Large, taken: dict[str, Memory]) -> str:
    """The text of the page's section."""
    said = (
        f"A generated perceptron with {model.bytes / GB:.2f} GB of weights in a file of their own, the largest of "
        f"{model.largest / GB:.2f} GB, and {model.batch_norms} BatchNorms, of which none is left. Memory is the "
        f"largest sum of RssAnon and RssShmem, looked at every 5 ms: what the process holds for itself. Pages of "
        f"mapped files are not counted; the system takes them back when it needs them. For folding and writing, "
        f"{allowed(model) / GB:.2f} GB are allowed: 1.5 times the largest tensor and 1 GB."
    )
    table = [
        "| `--verify` | what is done | memory | time |",
        "|---|---|---|---|",
        *(
            f"| `{level}` | {DONE[level]} | {each.peak / GB:.2f} GB | {each.seconds:.0f} s |"
            for level, each in taken.items()
        ),
    ]
    why = (
        "New weights are kept in a file without a name on the output's disk until they are written, so folding needs "
        "free space of the size of the model twice. onnxruntime holds the weights of what it runs, and verification "
        "runs two models: that is not bounded by the largest tensor, and `--verify off` is what a small machine can do."
    )
    written = (
        f"Written by `scripts/huge.py` on {machine('onnx-ir', 'onnxruntime', 'numpy')}; the load average, which tells "
        f"how much the machine did besides, was {os.getloadavg()[0]:.0f}."
    )
    return "\n".join(["## Memory", "", *paragraph(said), *table, "", *paragraph(why), *paragraph(written)]).rstrip()


def main() -> int:
    """Generates, converts and measures; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="with --verify full as well")
    parser.add_argument("--folder", help="where to work; a temporary folder if it is not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        model = make(Path(folder) / "huge.onnx", width=3600, layers=50, wide=36_000)
        taken = {}
        for level in ("off", "quick", *(["full"] if arguments.full else [])):
            taken[level] = convert(model, level)
            print(f"--verify {level}: {taken[level].peak:,} bytes, {taken[level].seconds:.0f} s", flush=True)
            write_section(RELIABILITY, "memory", section(model, taken))  # a run that is stopped keeps what it has
    missed = shortfalls(model, taken)
    for line in missed:
        print(line, file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
