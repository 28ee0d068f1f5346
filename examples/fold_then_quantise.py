"""Fold, then quantise to int8, and count the right answers.

    python examples/fold_then_quantise.py [quantised]

A BatchNorm that no convolution precedes stays an operator of its own in a quantised network, and its result is rounded
once more. So the network is folded first. Here onnxruntime quantises it (static, QDQ, int8 weights per channel): it
comes with bnfold, whereas torch's own quantisation has moved to a package of its own, torchao.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import bnfold

MODELS = Path(__file__).resolve().parent.parent / "models"
DIGITS = np.load(MODELS / "digits_test.npz")
CALIBRATION = 100  # images that the ranges are taken from; the others are counted


class Digits(CalibrationDataReader):
    """The first images, one after the other, as onnxruntime asks for them."""

    def __init__(self, name: str) -> None:
        self._images: Iterator[dict[str, np.ndarray]] = iter({name: image[None]} for image in DIGITS["x"][:CALIBRATION])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image, by the name of the model's input."""
        return next(self._images, None)


def quantised(model: Path) -> Path:
    """The model in int8, beside it."""
    out = model.with_suffix(".int8.onnx")
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser suggests a preprocessing that folds some BatchNorms
    name = onnx.load(model).graph.input[0].name
    quantize_static(
        model,
        out,
        Digits(name),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return out


def right(model: Path) -> float:
    """The part of the images beside the calibration's that are told right."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    images, labels = DIGITS["x"][CALIBRATION:], DIGITS["y"][CALIBRATION:]
    [logits] = session.run(None, {session.get_inputs()[0].name: images})
    return float((logits.argmax(1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("quantised"), help="where to write, default: quantised, here"
    )
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    report = bnfold.convert(
        MODELS / "preact_resnet.pt",
        folder / "folded.onnx",
        arch=f"{MODELS / 'architectures.py'}:preact_resnet",
        force=True,
    )
    assert report.passed
    small = quantised(folder / "folded.onnx")
    operators = Counter(node.op_type for node in onnx.load(small).graph.node)
    print(f"float32: {right(folder / 'folded.onnx'):.1%} right, int8: {right(small):.1%} right")
    print(f"BatchNorms in the int8 model: {operators['BatchNormalization']}")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
