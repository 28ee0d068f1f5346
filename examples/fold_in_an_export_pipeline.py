"""Fold inside an export pipeline: torch.export, fold, and on to .pt2 or ONNX.

    python examples/fold_in_an_export_pipeline.py [exported]

The program that torch.export makes is folded between capturing and writing. Its inputs, outputs and open dimensions
stay; what comes out is a program like any other, for torch.export.save, AOTInductor, ExecuTorch or torch.onnx.export.
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
    """A network of ArcFace's kind, with BatchNorms before padded convolutions, trained on handwritten digits."""
    from architectures import iresnet

    model = iresnet()
    model.load_state_dict(torch.load(MODELS / "iresnet.pt", weights_only=True))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("exported"), help="where to write, default: exported, here"
    )
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    x = torch.rand(2, 1, 8, 8)
    program = torch.export.export(trained(), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    folded = bnfold.fold(program)
    for site in folded.plan.sites:
        if site.reason is not None:
            print(f"{site.name} stays: {site.reason.text}")
    assert bnfold.verify(program, folded.model)

    torch.export.save(folded.model, folder / "iresnet.pt2")
    onnx_program = torch.onnx.export(folded.model, (), dynamo=True, verbose=False)
    assert onnx_program is not None
    onnx_program.save(folder / "iresnet.onnx")
    verdict = bnfold.verify(program, folder / "iresnet.onnx")
    print("the ONNX file is the same function:", verdict.passed)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
