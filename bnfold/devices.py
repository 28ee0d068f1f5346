"""Where a model runs, by the words of `--device`."""

from __future__ import annotations

import difflib

from bnfold.cuda import require_cuda
from bnfold.errors import UnsupportedError, UsageError

DEVICES = ("cpu", "cuda")


def check_device(device: str | None) -> None:
    """Refuses a device that bnfold does not know; None is wherever the model is.

    Raises:
        UsageError: It is none of `DEVICES`.
    """
    if device is not None and device not in DEVICES:
        close = difflib.get_close_matches(device, DEVICES, n=1)
        guess = f"Did you mean {close[0]}? " if close else ""
        raise UsageError(f"no device is called {device!r}", f"{guess}There are: {', '.join(DEVICES)}.")


def require_device(device: str, kind: str) -> None:
    """Refuses a device that what runs a kind of model (`"ONNX"` or `"PyTorch"`) does not have here.

    Raises:
        UnsupportedError: It does not, or bnfold cannot time there.
    """
    if device == "cpu":
        return
    if device.partition(":")[0] not in DEVICES:
        raise UnsupportedError(
            f"the model is on {device}, and models are timed on {' or '.join(DEVICES)}",
            "Pass --device cpu, for example.",
        )
    if kind != "ONNX":
        require_cuda()
        return
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UnsupportedError(
            f"onnxruntime {onnxruntime.__version__} was built without CUDA",
            "Use --device cpu, or pip install onnxruntime-gpu in place of onnxruntime.",
        )
