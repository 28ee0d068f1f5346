"""What recalibration does for the trained models on shifted digits: the table of docs/recalibration.md.

    python scripts/recalibrate.py            prints the table
    python scripts/recalibrate.py --write    puts it into docs/recalibration.md

The 500 test images, which no network has seen, are cut in two: statistics are taken from the first 250, without their
labels, and accuracy is measured on the other 250. `drift` looks at all 500, shifted or not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import bnfold

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "recalibration.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
NETWORKS = ("mlp", "resnet", "preact_resnet", "iresnet", "repvgg", "densenet", "tcn")


def shifts(x: np.ndarray) -> dict[str, np.ndarray]:
    """The test images as other cameras might deliver them; float32[500, 1, 8, 8]."""
    noise = np.random.default_rng(0).normal(0, 0.25, x.shape)
    return {
        "inverted contrast": 1 - x,
        "noise, σ = 0.25": x + noise,
        "scaled, × 0.25": 0.25 * x,
        "scaled, × 4": 4 * x,
        "washed out, 0.3 x + 0.6": 0.3 * x + 0.6,
    }


def convert(name: str, folder: Path, data: Path, recalibrate: Path | None = None) -> dict:
    """The JSON report on a network folded, and measured on data."""
    return bnfold.convert(
        ROOT / "models" / f"{name}.pt",
        folder / "out.onnx",
        arch=f"{ROOT / 'models' / 'architectures.py'}:{name}",
        data=data,
        recalibrate=recalibrate,
        force=True,
    ).to_dict()


def drift(name: str, data: Path) -> dict:
    """What `bnfold drift` says of a network and data."""
    arch = f"{ROOT / 'models' / 'architectures.py'}:{name}"
    return bnfold.drift(ROOT / "models" / f"{name}.pt", data, arch=arch).to_dict()["drift"]


def save(folder: Path, name: str, x: np.ndarray, y: np.ndarray) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


def table(folder: Path) -> list[str]:
    """The rows of the table, one per network and shift."""
    digits = np.load(ROOT / "models" / "digits_test.npz")
    x, y = digits["x"], digits["y"]
    half = len(x) // 2
    lines = [
        "| network | images | drift, worst layer | drifted | as trained, folded | recalibrated, folded |",
        "|---|---|---|---|---|---|",
    ]
    original = save(folder, "original", x, y), save(folder, "original_b", x[half:], y[half:])
    original_a = save(folder, "original_a", x[:half], y[:half])
    for name in NETWORKS:
        sets = {"original": (original[0], original_a, original[1])}
        for index, (shift, moved) in enumerate(shifts(x).items()):
            files = [save(folder, f"{index}", moved, y), save(folder, f"{index}_a", moved[:half], y[:half])]
            sets[shift] = (*files, save(folder, f"{index}_b", moved[half:], y[half:]))
        for shift, (whole, first, second) in sets.items():
            found = drift(name, whole)
            measured = convert(name, folder, second, recalibrate=first)["accuracy"]
            lines.append(
                f"| `{name}` | {shift} | {found['worst']:.2f} | {found['drifted']} of {len(found['layers'])} "
                f"| {100 * measured['folded_only']:.1f} % | {100 * measured['after']:.1f} % |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/recalibration.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join(table(Path(folder)))
    if not arguments.write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
