"""Write an ONNX model with its BatchNorms still in it, to try bnfold's commands on.

    python examples/export_unfolded.py [model.onnx] [--network preact_resnet]

It is one of the networks of models/, which were trained on handwritten digits, as torch.onnx.export writes it when told
to optimise nothing: by default it folds some of the BatchNorms itself. An existing file is replaced.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

MODELS = Path(__file__).resolve().parent.parent / "models"
sys.path.insert(0, str(MODELS))


def trained(name: str) -> torch.nn.Module:
    """A network of models/, by its name there."""
    import architectures

    model: torch.nn.Module = getattr(architectures, name)()
    model.load_state_dict(torch.load(MODELS / f"{name}.pt", weights_only=True))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", default=Path("model.onnx"), help="default: model.onnx here")
    parser.add_argument("--network", default="preact_resnet", help="a name of models/, default: preact_resnet")
    options = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)  # of torch.export, about itself
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        trained(options.network),
        (torch.zeros(2, 1, 8, 8),),
        input_names=["image"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    program.save(options.output)
    nodes = [node.op_type for node in program.model.graph]
    print(f"{options.output}: {nodes.count('BatchNormalization')} BatchNorms in {len(nodes)} operators")


if __name__ == "__main__":
    main()
