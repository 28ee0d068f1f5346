"""Fold a network before torch.compile, and measure what that gives.

    python examples/fold_then_compile.py [--backend inductor] [--min-time 2]

torch.compile fuses what is left after folding; it does not move a BatchNorm that stands before a ReLU and a
convolution, as in a pre-activation ResNet. So the network is folded first, and compiled as usual.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import bnfold

MODELS = Path(__file__).resolve().parent.parent / "models"
sys.path.insert(0, str(MODELS))


def trained() -> torch.nn.Module:
    """A pre-activation ResNet that was trained on handwritten digits."""
    from architectures import preact_resnet

    model = preact_resnet()
    model.load_state_dict(torch.load(MODELS / "preact_resnet.pt", weights_only=True))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--min-time", type=float, default=2.0, metavar="SECONDS", help="how long to time each runtime")
    options = parser.parse_args()

    model, x = trained(), torch.rand(16, 1, 8, 8)
    folded = bnfold.fold(model, x)
    print(f"{len(folded.plan.sites)} BatchNorms, {folded.plan.kept} left")
    assert bnfold.verify(model, folded.model, x)

    compiled = torch.compile(folded.model, backend=options.backend)
    with torch.no_grad():
        print("compiled, largest difference:", f"{(compiled(x) - model(x)).abs().max():.1e}")

    runtimes = ["torch", "torch-compile"] if options.backend == "inductor" else ["torch"]
    timing = bnfold.bench(model, folded.model, x, runtimes=runtimes, threads=1, min_time=options.min_time)
    for row in timing.rows:
        print(f"{row.runtime}: {row.before_ms:.3f} ms before, {row.after_ms:.3f} ms after: {row.verdict}")


if __name__ == "__main__":
    main()
