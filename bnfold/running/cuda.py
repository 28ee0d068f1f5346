"""PyTorch on an NVIDIA GPU: whether there is one, and how long a call keeps it busy.

A call returns before its kernels have run, so the wall's clock would time the queue. Two events on the stream are
recorded by the device itself, around one call at a time, with nothing in the queue before: from the moment the first
kernel could start to the end of the last one, with the time in which the device waits for the host to queue more.
"""

from __future__ import annotations

from bnfold.errors import UnsupportedError
from bnfold.running.timing import Call

SPIN_UP_S = 1.0  # an idle device runs at a fraction of its clock, and takes tenths of a second to raise it


def require_cuda() -> None:
    """Refuses to go on where PyTorch has no CUDA device.

    Raises:
        UnsupportedError: It has none.
    """
    import torch

    if not torch.cuda.is_available():
        raise UnsupportedError(
            f"PyTorch {torch.__version__} finds no CUDA device here",
            "Use --device cpu, or a build of PyTorch with CUDA on a machine with an NVIDIA GPU.",
        )


def gpu_name(device: str = "cuda") -> str:
    """What a CUDA device is called: `NVIDIA H100 80GB HBM3`."""
    import torch

    return str(torch.cuda.get_device_name(device))


def peak_bytes(call: Call) -> int:
    """The largest amount of the device's memory that a call takes, beyond what is taken already."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - held)


def event_seconds(call: Call, repeats: int) -> float:
    """Seconds per call by CUDA events on the current stream; each call starts on an idle device."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    total_ms = 0.0
    for _ in range(repeats):
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        total_ms += start.elapsed_time(end)
    return total_ms / 1e3 / repeats
