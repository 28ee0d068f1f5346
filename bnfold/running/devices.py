"""Where a model runs, by the words of `--device`."""

from __future__ import annotations

from collections.abc import Sequence

from bnfold.errors import UnsupportedError, UsageError
from bnfold.running.cuda import require_cuda
from bnfold.running.openvinorunner import require_openvino
from bnfold.running.runners import OPENVINO
from bnfold.wording import guess_among

DEVICES = ("cpu", "cuda")


def check_device(device: str | None) -> None:
    """Refuses a device that bnfold does not know; None is wherever the model is.

    Raises:
        UsageError: It is none of `DEVICES`.
    """
    if device is not None and device not in DEVICES:
        raise UsageError(f"no device is called {device!r}", guess_among(device, DEVICES))


def require_device(device: str, kind: str, runtimes: Sequence[str] = ()) -> None:
    """Refuses what is not here: a runtime that is not installed, or one without that device.

    Args:
        device: Where models are to run.
        kind: What they are, `"ONNX"` or `"PyTorch"`.
        runtimes: What is to run them.

    Raises:
        UnsupportedError: It is not here, or bnfold cannot time there.
    """
    if OPENVINO in runtimes:
        require_openvino()
    if device == "cpu":
        return
    if OPENVINO in runtimes:
        raise UnsupportedError("OpenVINO runs on the CPU only", "Use --device cpu, or name other runtimes.")
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
